#include "io/safetensors_writer.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json_writer.h"
#include "base/strings.h"
#include "io/block_writer.h"
#include "io/safetensors.h"

namespace mica::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "model.safetensors.index.json";

uint64_t bytes_of(const TensorSpec& tensor) {
  return *tensor_bytes(tensor.shape, safetensors_dtype_size(tensor.dtype));
}

// `where` names what is being written in messages.
void check_specs(const std::vector<TensorSpec>& tensors, const std::string& where) {
  auto fail = [&](const TensorSpec& tensor, const std::string& reason) {
    throw_value("cannot write {}: tensor '{}' {}", printable(where), excerpt(tensor.name, 200),
                reason);
  };
  std::vector<const TensorSpec*> by_name;
  for (const TensorSpec& tensor : tensors) {
    by_name.push_back(&tensor);
    size_t size = safetensors_dtype_size(tensor.dtype);
    if (size == 0)
      fail(tensor, fmt::format("has a dtype that safetensors lacks: {}", tensor.dtype));
    if (!is_utf8(tensor.name) || tensor.name == kSafetensorsMetadata)
      fail(tensor, "has a name it may not have");
    if (!tensor_bytes(tensor.shape, size))
      fail(tensor, fmt::format("has no possible shape: ({})", fmt::join(tensor.shape, ", ")));
  }
  std::sort(by_name.begin(), by_name.end(),
            [](const TensorSpec* a, const TensorSpec* b) { return a->name < b->name; });
  for (size_t i = 1; i < by_name.size(); ++i) {
    if (by_name[i]->name == by_name[i - 1]->name) fail(*by_name[i], "occurs twice");
  }
}

void sort_for_alignment(std::vector<size_t>& places, const std::vector<TensorSpec>& tensors) {
  std::sort(places.begin(), places.end(), [&](size_t a, size_t b) {
    const TensorSpec &one = tensors[a], &other = tensors[b];
    size_t left = safetensors_dtype_size(one.dtype), right = safetensors_dtype_size(other.dtype);
    return left != right ? left > right : one.name < other.name;
  });
}

// The length and the header of a file that holds the tensors at `places`, in this order.
std::string make_header(const std::vector<TensorSpec>& tensors, const std::vector<size_t>& places,
                        const SafetensorsMetadata& metadata, const std::string& where) {
  JsonWriter json;
  json.begin_object();
  if (!metadata.empty()) {
    json.key(kSafetensorsMetadata).begin_object();
    for (const auto& [key, value] : metadata) json.key(key).value(value);
    json.end_object();
  }
  uint64_t offset = 0;
  for (size_t place : places) {
    const TensorSpec& tensor = tensors[place];
    uint64_t end = offset + bytes_of(tensor);
    json.key(tensor.name).begin_object();
    json.key("dtype").value(tensor.dtype).key("shape").value(tensor.shape);
    json.key("data_offsets").begin_array().value(offset).value(end).end_array().end_object();
    offset = end;
  }
  std::string header = json.end_object().take();
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > kMaxSafetensorsHeader)
    throw_value("cannot write {}: its header would take {} bytes, more than the {} allowed",
                printable(where), header.size(), kMaxSafetensorsHeader);
  std::string length;
  for (size_t i = 0; i < kSafetensorsLengthBytes; ++i)
    length += static_cast<char>(header.size() >> (8 * i));
  return length + header;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Files readers would read besides or instead of those to be written.
void check_folder(const std::string& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) throw_io("{}: there is no such folder", printable(folder));
  for (const auto& item : fs::directory_iterator(folder, error)) {
    std::string name = item.path().filename().string();
    if (name == kIndex || (name.starts_with("model") && name.ends_with(".safetensors")))
      throw_io("{} already holds a model: {}", printable(folder), printable(name));
  }
  if (error) throw_cannot("read", folder, error.value());
}

// Declared tensors as files; the names come with the number of files.
std::vector<SafetensorsFilePlan> deal_out(const std::vector<TensorSpec>& tensors,
                                          uint64_t most_bytes) {
  std::vector<SafetensorsFilePlan> files(1);
  uint64_t filled = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    uint64_t bytes = bytes_of(tensors[i]);
    if (most_bytes > 0 && !files.back().tensors.empty() && filled + bytes > most_bytes) {
      files.emplace_back();
      filled = 0;
    }
    files.back().tensors.push_back(i);
    filled += bytes;
  }
  for (size_t i = 0; i < files.size(); ++i) {
    files[i].name = files.size() == 1
                        ? "model.safetensors"
                        : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size());
    sort_for_alignment(files[i].tensors, tensors);
  }
  return files;
}

}  // namespace

std::vector<SafetensorsFilePlan> plan_safetensors(const std::vector<TensorSpec>& tensors,
                                                  const SafetensorsOptions& options) {
  check_specs(tensors, "the model");
  std::vector<SafetensorsFilePlan> files = deal_out(tensors, options.shard_bytes);
  for (SafetensorsFilePlan& file : files) {
    file.bytes = make_header(tensors, file.tensors, options.metadata, file.name).size();
    for (size_t place : file.tensors) file.bytes += bytes_of(tensors[place]);
  }
  return files;
}

class SafetensorsWriter::Impl {
 public:
  Impl(const std::string& folder, std::vector<TensorSpec> tensors,
       const SafetensorsOptions& options)
      : folder_(folder), options_(options), tensors_(std::move(tensors)) {
    check_folder(folder_);
    plan_ = plan_safetensors(tensors_, options_);
    files_.resize(plan_.size());
    places_.resize(tensors_.size());
    for (size_t file = 0; file < plan_.size(); ++file) {
      uint64_t at = plan_[file].bytes;
      for (auto place = plan_[file].tensors.rbegin(); place != plan_[file].tensors.rend();
           ++place) {
        uint64_t bytes = bytes_of(tensors_[*place]);
        at -= bytes;
        places_[*place] = {file, at, at + bytes};
      }
      files_[file].missing = plan_[file].bytes - at;
    }
    for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
  }

  const std::vector<SafetensorsFilePlan>& plan() const { return plan_; }

  void write(std::string_view tensor, std::span<const std::byte> bytes) {
    auto found = by_name_.find(tensor);
    if (found == by_name_.end())
      throw_value("cannot write tensor '{}': it was not declared", excerpt(tensor, 200));
    Place& place = places_[found->second];
    if (bytes.size() > place.end - place.next)
      throw_value("cannot write {} more bytes of tensor '{}', which lacks {}", bytes.size(),
                  excerpt(tensor, 200), place.end - place.next);
    if (bytes.empty()) return;
    File& file = begun(place.file);
    file.blocks->write(place.next, bytes);
    place.next += bytes.size();
    file.missing -= bytes.size();
    if (file.missing > 0) return;
    file.blocks->flush();
    file.out->close();
  }

  void commit() {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (places_[i].next != places_[i].end)
        throw_value("tensor '{}' is not complete: {} of its {} bytes are missing",
                    excerpt(tensors_[i].name, 200), places_[i].end - places_[i].next,
                    bytes_of(tensors_[i]));
    }
    std::vector<std::string> renamed;
    try {
      for (size_t i = 0; i < files_.size(); ++i) {
        File& file = begun(i);
        file.blocks->flush();  // of a file without a single byte of tensors
        file.out->commit();
        renamed.push_back(path_of(plan_[i]));
      }
      if (plan_.size() > 1) write_file(folder_ + '/' + kIndex, index());
    } catch (...) {
      for (const std::string& path : renamed) unlink(path.c_str());
      throw;
    }
  }

 private:
  struct Place {
    size_t file = 0;
    uint64_t next = 0, end = 0;  // where the next byte goes, in its file
  };
  struct File {
    std::unique_ptr<AtomicFile> out;  // none before its first byte
    std::unique_ptr<BlockWriter> blocks;
    uint64_t missing = 0;
  };

  std::string path_of(const SafetensorsFilePlan& file) const { return folder_ + '/' + file.name; }

  File& begun(size_t number) {
    File& file = files_[number];
    if (file.out) return file;
    const SafetensorsFilePlan& plan = plan_[number];
    file.out = std::make_unique<AtomicFile>(path_of(plan));
    file.out->reserve(plan.bytes);
    file.blocks = std::make_unique<BlockWriter>(*file.out, plan.bytes);
    const std::string header = make_header(tensors_, plan.tensors, options_.metadata, plan.name);
    file.blocks->write(0, std::as_bytes(std::span(header)));
    return file;
  }

  std::string index() const {
    uint64_t total = 0;
    for (const TensorSpec& tensor : tensors_) total += bytes_of(tensor);
    JsonWriter json(4);
    json.begin_object().key("metadata").begin_object().key("total_size").value(total);
    if (options_.parameters > 0) json.key("total_parameters").value(options_.parameters);
    json.end_object().key("weight_map").begin_object();
    for (const auto& [name, place] : by_name_)
      json.key(name).value(plan_[places_[place].file].name);
    return json.end_object().end_object().take() + '\n';
  }

  std::string folder_;
  SafetensorsOptions options_;
  std::vector<TensorSpec> tensors_;
  std::vector<SafetensorsFilePlan> plan_;
  std::vector<File> files_;
  std::vector<Place> places_;  // of each tensor
  std::map<std::string, size_t, std::less<>> by_name_;
};

SafetensorsWriter::SafetensorsWriter(const std::string& folder, std::vector<TensorSpec> tensors,
                                     const SafetensorsOptions& options)
    : impl_(std::make_unique<Impl>(folder, std::move(tensors), options)) {}
SafetensorsWriter::~SafetensorsWriter() = default;

const std::vector<SafetensorsFilePlan>& SafetensorsWriter::files() const { return impl_->plan(); }
void SafetensorsWriter::write(std::string_view tensor, std::span<const std::byte> bytes) {
  impl_->write(tensor, bytes);
}
void SafetensorsWriter::commit() { impl_->commit(); }

void write_safetensors(const std::string& path, const std::vector<TensorData>& tensors,
                       const SafetensorsMetadata& metadata) {
  std::vector<TensorSpec> specs;
  for (const TensorData& tensor : tensors)
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  check_specs(specs, path);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].bytes.size() != bytes_of(specs[i]))
      throw_value("cannot write {}: tensor '{}' of shape ({}) and dtype {} comes with {} bytes",
                  printable(path), excerpt(specs[i].name, 200), fmt::join(specs[i].shape, ", "),
                  specs[i].dtype, tensors[i].bytes.size());
  }
  std::vector<size_t> places(specs.size());
  std::iota(places.begin(), places.end(), size_t{0});
  sort_for_alignment(places, specs);
  AtomicFile file(path);
  file.write(make_header(specs, places, metadata, path));
  for (size_t place : places) file.write(text_of(tensors[place].bytes));
  file.commit();
}

}  // namespace mica::io
