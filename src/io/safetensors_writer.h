// Writing safetensors files (the format: io/safetensors.h) whose tensors are known before their
// bytes are: declared first, then filled piece by piece, so that a model of any size is written
// with the memory of a piece.
//
//   SafetensorsWriter writer(folder, {{"lm_head.weight", "BF16", {32000, 4096}}, …},
//                            {.shard_bytes = uint64_t{5} << 30});
//   for (…) writer.write("lm_head.weight", rows);    // the next bytes of that tensor
//   writer.commit();                                 // now the files are there
//
// Tensors may be filled in any order and in turns; the bytes of each arrive in their order,
// row-major and little endian. Without `shard_bytes` there is one file, model.safetensors. With it,
// tensors are dealt out in the order of their declaration to files of at most so many bytes of
// tensors (a larger tensor has a file of its own); several are named
// model-00001-of-00003.safetensors, with model.safetensors.index.json beside them, as Hugging
// Face's libraries and MLX-LM name them. Within a file tensors lie by element size, largest first,
// then by name, from a multiple of 8 bytes on, so that each is aligned.
//
// Nothing half-written appears: files have temporary names until commit() renames them, the index
// last, and are removed if that does not come or fails. A full disk is told when a file is begun,
// where the file system can.
//
// Errors: Value for what the format cannot say (an unknown dtype, a negative or overflowing shape,
// a name twice), for bytes that no tensor has room for, and for a commit() before all are there; Io
// if writing fails, and if the folder is missing or holds files that readers would take for part of
// the model (model*.safetensors, model.safetensors.index.json).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mica::io {

struct TensorSpec {
  std::string name;
  std::string dtype;  // one of those that safetensors_dtype_size() knows
  std::vector<int64_t> shape;
};

using SafetensorsMetadata = std::map<std::string, std::string>;

struct SafetensorsOptions {
  uint64_t shard_bytes = 0;                         // 0: one file
  SafetensorsMetadata metadata{{"format", "mlx"}};  // of each file; what MLX-LM writes
  int64_t parameters = 0;                           // "total_parameters" of the index, if not 0
};

// One of the files that a writer makes.
struct SafetensorsFilePlan {
  std::string name;
  uint64_t bytes = 0;           // of the file, with its header
  std::vector<size_t> tensors;  // their places in the declaration, in the order of their bytes
};

// The files that a writer would make of these tensors: for estimates.
std::vector<SafetensorsFilePlan> plan_safetensors(const std::vector<TensorSpec>& tensors,
                                                  const SafetensorsOptions& options = {});

class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& folder, std::vector<TensorSpec> tensors,
                    const SafetensorsOptions& options = {});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  const std::vector<SafetensorsFilePlan>& files() const;
  // The tensor's next bytes.
  void write(std::string_view tensor, std::span<const std::byte> bytes);
  // Once, when every tensor has all its bytes.
  void commit();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// The same for one file of any name whose bytes are at hand.
struct TensorData {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};
void write_safetensors(const std::string& path, const std::vector<TensorData>& tensors,
                       const SafetensorsMetadata& metadata = {});

}  // namespace mica::io
