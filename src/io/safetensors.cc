#include "io/safetensors.h"

#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/strings.h"

namespace mica::io {
namespace {

using simdjson::dom::element;

struct DtypeRow {
  std::string_view name;
  size_t size;
};
constexpr DtypeRow kDtypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
    {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
    {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8},
};

// Reads the header of one file.
class Parser {
 public:
  Parser(std::span<const std::byte> file, std::string_view path)
      : file_(file), path_(printable(path)) {}

  SafetensorsIndex parse() {
    const std::string_view header = find_header();
    simdjson::dom::parser parser;
    element root;
    if (const auto error = parser.parse(header.data(), header.size()).get(root)) {
      throw_value("{}: the safetensors header is not valid JSON: {}", path_,
                  simdjson::error_message(error));
    }
    simdjson::dom::object members;
    if (root.get(members)) throw_value("{}: the safetensors header is not an object", path_);
    bool has_metadata = false;
    for (const auto [name, value] : members) {
      if (name != kSafetensorsMetadata) {
        index_.tensors.push_back(parse_tensor(name, value));
      } else if (std::exchange(has_metadata, true)) {
        throw_value("{}: {} occurs twice in the header", path_, kSafetensorsMetadata);
      } else {
        parse_metadata(value);
      }
    }
    check_tiling();
    sort_by_name();
    return std::move(index_);
  }

 private:
  std::string_view text() const {
    return {reinterpret_cast<const char*>(file_.data()), file_.size()};
  }

  std::string_view find_header() {
    if (text().starts_with("version https://git-lfs")) {
      throw_value("{}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
                  path_);
    }
    if (file_.size() < kSafetensorsLengthBytes) {
      throw_value("{}: {} bytes are too few for a safetensors file; it is empty or truncated",
                  path_, file_.size());
    }
    uint64_t length = 0;
    for (size_t i = 0; i < kSafetensorsLengthBytes; ++i)
      length |= std::to_integer<uint64_t>(file_[i]) << (8 * i);
    if (length > kMaxSafetensorsHeader) {
      throw_value("{}: a header of {} bytes, more than the {} allowed; this is no safetensors file",
                  path_, length, kMaxSafetensorsHeader);
    }
    if (length > file_.size() - kSafetensorsLengthBytes) {
      throw_value("{}: truncated: the header takes {} bytes, the file has {}", path_,
                  kSafetensorsLengthBytes + length, file_.size());
    }
    data_begin_ = kSafetensorsLengthBytes + length;
    const std::string_view header = text().substr(kSafetensorsLengthBytes, length);
    if (!header.starts_with('{')) {
      throw_value("{}: the safetensors header does not start with '{{'", path_);
    }
    return header;
  }

  void parse_metadata(element value) {
    if (value.is_null()) return;  // MLX writes this for none
    simdjson::dom::object members;
    if (value.get(members)) throw_value("{}: {} is not an object", path_, kSafetensorsMetadata);
    for (const auto [key, member] : members) {
      std::string_view text;
      if (member.get(text)) {
        throw_value("{}: {} '{}' is not a string", path_, kSafetensorsMetadata, excerpt(key));
      }
      if (!index_.metadata.emplace(key, text).second) {
        throw_value("{}: {} '{}' occurs twice", path_, kSafetensorsMetadata, excerpt(key));
      }
    }
  }

  template <class... Args>
  [[noreturn]] void fail(std::string_view tensor, fmt::format_string<Args...> reason,
                         Args&&... args) const {
    throw_value("{}: tensor '{}': {}", path_, excerpt(tensor, 200),
                fmt::format(reason, std::forward<Args>(args)...));
  }

  TensorEntry parse_tensor(std::string_view name, element value) const {
    simdjson::dom::object members;
    if (value.get(members)) fail(name, "its description is not an object");
    std::optional<element> dtype, shape, offsets;
    for (const auto [key, member] : members) {
      auto* field = key == "dtype" ? &dtype : key == "shape" ? &shape : &offsets;
      if (field == &offsets && key != "data_offsets") continue;
      if (field->has_value()) fail(name, "'{}' occurs twice", key);
      *field = member;
    }
    if (!dtype) fail(name, "'dtype' is missing");
    if (!shape) fail(name, "'shape' is missing");
    if (!offsets) fail(name, "'data_offsets' is missing");
    TensorEntry entry;
    entry.name = name;
    const size_t size = parse_dtype(entry, *dtype);
    parse_shape(entry, *shape);
    parse_offsets(entry, *offsets, size);
    return entry;
  }

  size_t parse_dtype(TensorEntry& entry, element value) const {
    std::string_view dtype;
    if (value.get(dtype)) fail(entry.name, "'dtype' is not a string");
    const size_t size = safetensors_dtype_size(dtype);
    if (size == 0) fail(entry.name, "unknown dtype '{}'", excerpt(dtype));
    entry.dtype = dtype;
    return size;
  }

  void parse_shape(TensorEntry& entry, element value) const {
    simdjson::dom::array dimensions;
    if (value.get(dimensions)) fail(entry.name, "'shape' is not an array");
    for (const element dimension : dimensions) {
      int64_t extent = 0;
      if (dimension.get(extent) || extent < 0) {
        fail(entry.name, "'shape' holds something other than numbers from 0 to 2^63 - 1");
      }
      entry.shape.push_back(extent);
    }
  }

  void parse_offsets(TensorEntry& entry, element value, size_t element_size) const {
    simdjson::dom::array pair;
    uint64_t begin = 0, end = 0;
    if (value.get(pair) || pair.size() != 2 || pair.at(0).get(begin) || pair.at(1).get(end)) {
      fail(entry.name, "'data_offsets' is not a pair of numbers from 0 to 2^64 - 1");
    }
    if (begin > end) fail(entry.name, "ends at {} before it begins at {}", end, begin);
    const auto bytes = tensor_bytes(entry.shape, element_size);
    const auto shape = [&] { return fmt::format("({})", fmt::join(entry.shape, ", ")); };
    if (!bytes) fail(entry.name, "shape {} of {} overflows", excerpt(shape(), 200), entry.dtype);
    if (end - begin != *bytes) {
      fail(entry.name, "shape {} of {} takes {} bytes, its data_offsets span {}",
           excerpt(shape(), 200), entry.dtype, *bytes, end - begin);
    }
    const uint64_t available = file_.size() - data_begin_;
    if (end > available) {
      fail(entry.name, "ends at byte {} of the data, of which the file has {}; it is truncated",
           end, available);
    }
    entry.begin = data_begin_ + begin;
    entry.end = data_begin_ + end;
    entry.aligned = entry.begin % element_size == 0;
  }

  // The data is covered exactly once.
  void check_tiling() {
    auto& tensors = index_.tensors;
    std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    uint64_t covered = data_begin_;
    const TensorEntry* previous = nullptr;
    for (const TensorEntry& entry : tensors) {
      if (entry.begin < covered) fail(entry.name, "overlaps '{}'", excerpt(previous->name, 200));
      if (entry.begin > covered) {
        fail(entry.name, "{} bytes before it belong to no tensor", entry.begin - covered);
      }
      covered = entry.end;
      previous = &entry;
    }
    if (covered != file_.size()) {
      throw_value("{}: {} bytes at the end belong to no tensor", path_, file_.size() - covered);
    }
  }

  void sort_by_name() {
    auto& tensors = index_.tensors;
    std::sort(tensors.begin(), tensors.end(),
              [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; });
    for (size_t i = 1; i < tensors.size(); ++i) {
      if (tensors[i].name == tensors[i - 1].name)
        fail(tensors[i].name, "occurs twice in the header");
    }
  }

  std::span<const std::byte> file_;
  std::string path_;
  uint64_t data_begin_ = 0;
  SafetensorsIndex index_;
};

}  // namespace

const TensorEntry* SafetensorsIndex::find(std::string_view name) const {
  const auto at = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const TensorEntry& entry, std::string_view wanted) { return entry.name < wanted; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

std::optional<uint64_t> tensor_bytes(const std::vector<int64_t>& shape, size_t element_size) {
  int64_t bytes = static_cast<int64_t>(element_size);
  for (const int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(bytes, dimension, &bytes)) return std::nullopt;
  }
  return static_cast<uint64_t>(bytes);
}

size_t safetensors_dtype_size(std::string_view dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.name == dtype) return row.size;
  }
  return 0;
}

SafetensorsIndex parse_safetensors(std::span<const std::byte> file, std::string_view path) {
  return Parser(file, path).parse();
}

}  // namespace mica::io
