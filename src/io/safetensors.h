// The safetensors format (https://github.com/huggingface/safetensors, "Format"): eight bytes with
// the length of a header (little endian), the header, a JSON object of {"name": {"dtype", "shape",
// "data_offsets"}}, and the tensors' bytes, row-major and little endian, without holes.
//
//   const auto file = MappedFile::open(path);
//   const SafetensorsIndex index = parse_safetensors(file->bytes(), path);
//   const TensorEntry* weight = index.find("lm_head.weight");     // null if there is none
//   use(weight->dtype, weight->shape, file->bytes().subspan(weight->begin, weight->end -
//   weight->begin));
//
// The file is not trusted: what parse_safetensors returns holds for the bytes it was given. Every
// problem is a Value error with the path and the tensor's name. Writing: io/safetensors_writer.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mica::io {

struct TensorEntry {
  std::string name;
  std::string dtype;           // as in the file, one of those that safetensors_dtype_size() knows
  std::vector<int64_t> shape;  // none negative; the product times the element's size is end - begin
  uint64_t begin = 0;          // first byte, counted from the start of the file
  uint64_t end = 0;            // one past the last
  bool aligned = true;  // whether begin is a multiple of the element's size; files need not care
};

struct SafetensorsIndex {
  std::vector<TensorEntry> tensors;  // by name; their ranges tile the file after the header
  std::map<std::string, std::string> metadata;  // "__metadata__"

  const TensorEntry* find(std::string_view name) const;
};

// Bytes per element of BOOL, U8, I8, F8_E5M2, F8_E4M3, I16, U16, F16, BF16, I32, U32, F32, F64, I64
// and U64; 0 for any other name.
size_t safetensors_dtype_size(std::string_view dtype);

// Bytes of a tensor; none if they do not fit 63 bits or a dimension is negative.
std::optional<uint64_t> tensor_bytes(const std::vector<int64_t>& shape, size_t element_size);

inline constexpr uint64_t kSafetensorsLengthBytes = 8;
inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // the reference implementation's
inline constexpr std::string_view kSafetensorsMetadata = "__metadata__";

// `file` is the whole file; `path` names it in messages.
SafetensorsIndex parse_safetensors(std::span<const std::byte> file, std::string_view path);

}  // namespace mica::io
