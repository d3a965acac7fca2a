// Checkpoint: the tensors of a local folder in Hugging Face layout, used in place from mapped
// files.
//
//   io::Checkpoint checkpoint("model_dir");
//   Array w = checkpoint.array("model.norm.weight");
//
// Which files: those that model.safetensors.index.json names, else model.safetensors; never
// whatever lies in the folder. Errors name the file and the tensor. Pickled weights (.bin, .pt) are
// refused: they can run code.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "core/array.h"
#include "core/buffer.h"
#include "io/safetensors.h"

namespace mica::io {

class Checkpoint {
 public:
  explicit Checkpoint(const std::string& folder);

  struct Tensor {
    const TensorEntry* entry;
    size_t file;
  };
  // By name, in order.
  const std::map<std::string, Tensor, std::less<>>& tensors() const { return tensors_; }
  const TensorEntry* find(std::string_view name) const;
  // Unsupported for element types that arrays do not have.
  Dtype dtype(std::string_view name) const;
  // Shares the file's memory; a tensor that is not aligned to its element size is copied (and
  // counted). Unsupported for element types that arrays do not have.
  Array array(std::string_view name) const;
  // Elements `first` … of a tensor as an array of `shape`; of a tensor that is not aligned only
  // they are copied. The tensor must be there and have so many.
  Array part(std::string_view name, int64_t first, const Shape& shape) const;
  // These elements will not be read again soon (MappedFile::forget). Throws Io if the file changed
  // since it was opened.
  void let_go(std::string_view name, int64_t first, int64_t count) const;
  const std::vector<std::string>& files() const { return paths_; }
  int64_t bytes() const;  // of all tensors

 private:
  void open_file(const std::string& path);
  const Tensor& at(std::string_view name) const;
  Dtype dtype_of_tensor(const Tensor& tensor) const;
  void read_index(const std::string& folder, const std::string& index);

  std::vector<std::string> paths_;
  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::vector<std::unique_ptr<SafetensorsIndex>> headers_;
  std::vector<std::shared_ptr<Buffer>> buffers_;
  std::map<std::string, Tensor, std::less<>> tensors_;
};

// "F32" … of safetensors as a Dtype; Unsupported naming `where` for those that Mica has no arrays
// of.
Dtype dtype_of_safetensors(const std::string& dtype, const std::string& where);
// The inverse: "F32" … of a Dtype.
const char* safetensors_dtype(Dtype dtype);

}  // namespace mica::io
