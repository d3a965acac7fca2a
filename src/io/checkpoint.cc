#include "io/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "base/strings.h"
#include "core/counters.h"

namespace mica::io {

namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kSingle = "model.safetensors";

// Why there is nothing to load, for the kinds of folders that people have.
[[noreturn]] void refuse(const std::string& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) throw_io("{}: there is no such folder", printable(folder));
  for (const auto& item : fs::directory_iterator(folder, error)) {
    std::string name = item.path().filename().string();
    if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth"))
      throw_unsupported(
          "{}: the weights are pickled ({}), which can run code when read; convert them to "
          "safetensors",
          printable(folder), printable(name));
    if (name.ends_with(".gguf"))
      throw_unsupported("{}: GGUF files are not supported yet", printable(folder));
  }
  throw_io("{}: there is neither {} nor {}", printable(folder), kIndex, kSingle);
}

constexpr std::pair<const char*, Dtype> kTypes[] = {
    {"BOOL", Dtype::Bool}, {"U8", Dtype::U8},   {"U16", Dtype::U16}, {"U32", Dtype::U32},
    {"U64", Dtype::U64},   {"I8", Dtype::I8},   {"I16", Dtype::I16}, {"I32", Dtype::I32},
    {"I64", Dtype::I64},   {"F16", Dtype::F16}, {"F32", Dtype::F32}, {"F64", Dtype::F64},
    {"BF16", Dtype::BF16},
};

}  // namespace

Dtype dtype_of_safetensors(const std::string& dtype, const std::string& where) {
  for (const auto& [name, type] : kTypes) {
    if (dtype == name) return type;
  }
  throw_unsupported("{}: element type {} is not supported", printable(where), printable(dtype));
}

const char* safetensors_dtype(Dtype dtype) {
  auto of = [&](const auto& row) { return row.second == dtype; };
  return std::find_if(std::begin(kTypes), std::end(kTypes), of)->first;
}

Checkpoint::Checkpoint(const std::string& folder) {
  std::error_code error;
  std::string index = folder + '/' + kIndex, single = folder + '/' + kSingle;
  // A link that leads nowhere is there, and an error when it is read.
  if (fs::exists(fs::symlink_status(index, error)))
    read_index(folder, index);
  else if (fs::exists(fs::symlink_status(single, error)))
    open_file(single);
  else
    refuse(folder);
}

// The files that the index names must be in its folder and hold what it says they hold.
void Checkpoint::read_index(const std::string& folder, const std::string& index) {
  Json weight_map = Json::load(index).at("weight_map");
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map.members()) {
    auto name = file.as<std::string>();
    if (!is_path_component(name))
      file.fail("must be a file beside the index, not '{}'", excerpt(name));
    names.insert(name);
  }
  if (names.empty()) weight_map.fail("names no file");
  for (const std::string& name : names) open_file(folder + '/' + name);
  for (const auto& [tensor, file] : weight_map.members()) {
    auto found = tensors_.find(tensor);
    std::string path = folder + '/' + file.as<std::string>();
    if (found == tensors_.end() || paths_[found->second.file] != path)
      throw_value("{}: tensor '{}' is not in {}", index, printable(tensor), printable(path));
  }
}

void Checkpoint::open_file(const std::string& path) {
  auto file = MappedFile::open(path);
  headers_.push_back(std::make_unique<SafetensorsIndex>(parse_safetensors(file->bytes(), path)));
  buffers_.push_back(Buffer::map(file));
  files_.push_back(std::move(file));
  paths_.push_back(path);
  size_t number = paths_.size() - 1;
  for (const TensorEntry& entry : headers_.back()->tensors) {
    auto [at, fresh] = tensors_.try_emplace(entry.name, Tensor{&entry, number});
    if (!fresh)
      throw_value("{}: tensor '{}' is also in {}", path, printable(entry.name),
                  paths_[at->second.file]);
  }
}

const TensorEntry* Checkpoint::find(std::string_view name) const {
  auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : found->second.entry;
}

const Checkpoint::Tensor& Checkpoint::at(std::string_view name) const {
  auto found = tensors_.find(name);
  if (found == tensors_.end()) throw_value("there is no tensor '{}'", printable(name));
  return found->second;
}

Dtype Checkpoint::dtype_of_tensor(const Tensor& tensor) const {
  return dtype_of_safetensors(tensor.entry->dtype,
                              paths_[tensor.file] + ": tensor '" + tensor.entry->name + "'");
}

Dtype Checkpoint::dtype(std::string_view name) const { return dtype_of_tensor(at(name)); }

Array Checkpoint::array(std::string_view name) const {
  return part(name, 0, Shape(at(name).entry->shape));
}

Array Checkpoint::part(std::string_view name, int64_t first, const Shape& shape) const {
  const Tensor& tensor = at(name);
  const TensorEntry& entry = *tensor.entry;
  const Dtype dtype = dtype_of_tensor(tensor);
  const auto item = static_cast<uint64_t>(size_of(dtype));
  const uint64_t begin = entry.begin + static_cast<uint64_t>(first) * item;
  const auto count = static_cast<uint64_t>(elements(shape));
  MICA_ASSERT(first >= 0 && begin <= entry.end && count <= (entry.end - begin) / item);
  if (entry.aligned)
    return Array::from_buffer(buffers_[tensor.file], shape, dtype,
                              static_cast<int64_t>(begin / item));
  detail::count(detail::live_counters.bytes_copied, static_cast<int64_t>(count * item));
  return Array::from_bytes(files_[tensor.file]->bytes().data() + begin, count, shape, dtype);
}

void Checkpoint::let_go(std::string_view name, int64_t first, int64_t count) const {
  const Tensor& tensor = at(name);
  const auto item = static_cast<int64_t>(safetensors_dtype_size(tensor.entry->dtype));
  const MappedFile& file = *files_[tensor.file];
  file.check_unchanged();
  file.forget(file.bytes().data() + tensor.entry->begin + first * item,
              static_cast<size_t>(count * item));
}

int64_t Checkpoint::bytes() const {
  int64_t total = 0;
  for (const auto& [name, tensor] : tensors_)
    total += static_cast<int64_t>(tensor.entry->end - tensor.entry->begin);
  return total;
}

}  // namespace mica::io
