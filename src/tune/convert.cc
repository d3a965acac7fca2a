#include "tune/convert.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>

#include "base/atomic_folder.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/strings.h"
#include "io/checkpoint.h"
#include "models/load.h"
#include "models/registry.h"
#include "ops/elementwise.h"
#include "ops/quantized.h"
#include "ops/shape.h"

namespace mica::tune {

namespace {

namespace fs = std::filesystem;

constexpr int64_t kPieceElements = 2 << 20;

// A parameter of a model: an array, or the matrix of a layer with what belongs to it when packed.
struct Parameter {
  std::string key;                    // with ".weight" and the like
  std::optional<nn::StackRow> stack;  // where it could lie instead; its name is that of the module
  bool matrix = false;                // of a layer that may be quantized
  Shape shape;                        // unpacked
  std::optional<nn::Quantization> stored;
};

// The parameters of a model, in its order.
class Walk : public nn::Visitor {
 public:
  static std::vector<Parameter> of(models::Model& model) {
    Walk walk;
    walk.module("", model);
    return std::move(walk.parameters_);
  }

  std::optional<nn::Quantization> quantization(
      const std::optional<nn::Quantization>& current) override {
    matrix_ = path();
    packed_.reset();
    // Of the format alone: how products are computed is not stored.
    if (current) packed_ = nn::Quantization{current->group_size, current->bits};
    return current;
  }

 protected:
  void on_parameter(const std::string& key, Array&, const Shape& shape) override {
    const bool of_matrix = matrix_ && path() == *matrix_;
    if (of_matrix && packed_ && (key == *matrix_ + ".scales" || key == *matrix_ + ".biases"))
      return;
    Parameter one{.key = key, .stack = stack_row(), .shape = shape};
    one.matrix = of_matrix && key == *matrix_ + ".weight";
    if (one.matrix && packed_) {
      one.stored = packed_;
      one.shape.back() = shape.back() * 32 / packed_->bits;
    }
    parameters_.push_back(std::move(one));
  }

 private:
  std::optional<std::string> matrix_;
  std::optional<nn::Quantization> packed_;
  std::vector<Parameter> parameters_;
};

// One parameter's way from the source to the result.
struct Step {
  Parameter from;
  bool transposed = false;  // GPT-2's dense and quantized matrices lie differently
  std::string name;         // of the tensor; of the module if quantized
  std::optional<nn::StackRow> row;
  std::optional<nn::Quantization> q;
  Shape shape;  // unpacked, of this parameter alone
  Dtype dtype;  // of the tensor; of scales and biases if quantized

  bool first() const { return !row || row->index == 0; }
};

std::string without_weight(const std::string& key) {
  return key.substr(0, key.size() - std::string_view(".weight").size());
}

// Files beside the weights that belong to a model; never weights of other formats.
bool is_copied(const std::string& name) {
  constexpr std::string_view ends[] = {".json",     ".jinja", ".txt", ".model",
                                       ".tiktoken", ".md",    ".py",  ".vocab"};
  constexpr std::string_view starts[] = {"LICENSE", "NOTICE", "USE_POLICY"};
  if (name.starts_with('.') || name == "config.json" || name.ends_with(".index.json")) return false;
  auto ends_so = [&](std::string_view end) { return name.ends_with(end); };
  auto starts_so = [&](std::string_view start) { return name.starts_with(start); };
  return std::any_of(std::begin(ends), std::end(ends), ends_so) ||
         std::any_of(std::begin(starts), std::end(starts), starts_so);
}

std::vector<std::string> files_to_copy(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(folder, error)) {
    std::string name = item.path().filename().string();
    if (is_copied(name) && item.is_regular_file(error)) names.push_back(std::move(name));
  }
  if (error) throw_cannot("read", folder, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

// Python writes NaN and Infinity, which would be null in the result.
void check_writable(const Json& json) {
  if (json.is_object()) {
    for (const auto& [key, value] : json.members()) check_writable(value);
  } else if (json.is_array()) {
    for (const Json& value : json.elements()) check_writable(value);
  } else if (json.type() == Json::Type::Number && json.dump() == "null") {
    json.fail("is not finite, which JSON cannot say");
  }
}

Json to_json(const nn::Quantization& q) {
  return Json::object().set("group_size", q.group_size).set("bits", q.bits).set("mode", "affine");
}

}  // namespace

class Conversion::Impl {
 public:
  explicit Impl(ConvertOptions options) : options_(std::move(options)) {
    if (!options_.target.empty()) check_target();
    source_ = models::take_inventory(options_.source);
    const models::ModelInfo& info = source_.model->info();
    plan_.model_type = info.model_type;
    plan_.source_bytes = source_.checkpoint->bytes();
    check_source();
    plan_config();
    plan_steps(info.layers);
    finish_config();
    declare_tensors();
    plan_.copied = files_to_copy(options_.source);
  }

  const ConversionPlan& plan() const { return plan_; }

  void run() {
    AtomicFolder folder(options_.target, options_.replace);
    check_room(folder.path());
    io::SafetensorsWriter writer(folder.path(), specs_, safetensors_options());
    write_tensors(writer);
    writer.commit();
    write_file(folder.path() + "/config.json", config_.dump(4) + '\n');
    for (const std::string& name : plan_.copied) {
      std::error_code error;
      fs::copy_file(options_.source + '/' + name, folder.path() + '/' + name, error);
      if (error) throw_cannot("copy", options_.source + '/' + name, error.value());
    }
    folder.commit();
  }

 private:
  void check_target() const {
    std::error_code error;
    auto whole = [&](const std::string& path) {
      return fs::weakly_canonical(fs::absolute(path, error), error);
    };
    const fs::path source = whole(options_.source), target = whole(options_.target);
    const auto shared = std::mismatch(target.begin(), target.end(), source.begin(), source.end());
    if (shared.first == target.end())
      throw_io("{} is the source or holds it; the result needs a folder of its own",
               printable(options_.target));
    check_replaceable(options_.target, options_.replace);
    const bool holds = fs::is_directory(target, error) && !fs::is_empty(target, error);
    if (holds && !fs::exists(target / "config.json", error))
      throw_io("{} holds something that is no model; it is not replaced",
               printable(options_.target));
  }

  bool quantized_result() const {
    return options_.recipe || (quantized_source_ && !options_.dequantize);
  }

  void check_source() {
    auto stored = source_.config.find("quantization");
    if (!stored) stored = source_.config.find("quantization_config");
    quantized_source_ = stored.has_value();
    if (options_.recipe && quantized_source_)
      throw_value("{} is quantized already; dequantize it first, or take the original",
                  printable(options_.source));
    if (options_.dequantize && !quantized_source_)
      throw_value("{} is not quantized: there is nothing to dequantize",
                  printable(options_.source));
    if (stored) standard_ = models::read_quantization(*stored);
    if (options_.recipe) standard_ = options_.recipe->standard;
    if (!is_quantization(standard_))
      throw_value(
          "{} bits in groups of {} are not supported; supported: 2, 3, 4, 5, 6 or 8 bits in groups "
          "of 16, 32, 64 or 128",
          standard_.bits, standard_.group_size);
  }

  // The result's config.json, sorted by key as MLX-LM has it, without the layers' own entries yet.
  void plan_config() {
    check_writable(source_.config);
    std::map<std::string, Json> members;
    for (const auto& [key, value] : source_.config.members())
      members.emplace(std::string(key), value);
    members.erase("_name_or_path");
    if (options_.dequantize) {
      members.erase("quantization");
      members.erase("quantization_config");
    }
    if (quantized_result()) {
      for (const char* key : {"quantization", "quantization_config"})
        members[key] = to_json(standard_);
    }
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (options_.dtype && members.count(key)) members[key] = Json(dtype_name(*options_.dtype));
    }
    config_ = Json::object();
    for (const auto& [key, value] : members) config_.set(key, value);
  }

  // What the model of the result asks for, parameter by parameter, from what the source has.
  void plan_steps(int64_t layers) {
    std::vector<Parameter> from = Walk::of(*source_.model);
    auto model = models::make_model(Json::parse(config_.dump(), options_.target + "/config.json"));
    const std::vector<Parameter> to = Walk::of(*model);
    MICA_ASSERT(from.size() == to.size());
    std::vector<std::string> modules;
    for (size_t i = 0; i < to.size(); ++i) {
      Step step{.from = std::move(from[i]), .shape = to[i].shape};
      step.transposed = step.from.matrix != to[i].matrix;
      // MLX has the experts of a layer in one stack; Hugging Face one by one.
      if (quantized_result()) step.row = to[i].stack;
      std::string end = step.row ? to[i].key.substr(to[i].key.rfind('.')) : "";
      step.name = step.row ? step.row->name + end : to[i].key;
      if (to[i].matrix) modules.push_back(without_weight(step.name));
      choose_dtype(step);
      steps_.push_back(std::move(step));
      matrix_.push_back(to[i].matrix);
    }
    if (options_.recipe) choose_bits(LayerChoice(*options_.recipe, modules, layers));
    for (size_t i = 0; i < steps_.size(); ++i) {
      Step& step = steps_[i];
      if (!options_.recipe && !options_.dequantize) step.q = step.from.stored;
      if (step.q) step.name = without_weight(step.name);
      const bool each = options_.recipe && !options_.recipe->mixed.empty();
      if (step.q && step.first() && (each || !(*step.q == standard_)))
        layer_entries_.set(step.name, to_json(*step.q));
      if (matrix_[i]) count(step);
      plan_.parameters += elements(step.shape);
    }
  }

  void choose_dtype(Step& step) const {
    const Parameter& from = step.from;
    const std::string key = from.stored ? without_weight(from.key) + ".scales" : from.key;
    const Dtype dtype = source_.checkpoint->dtype(source_.parameters.at(key).tensor);
    step.dtype = is_floating(dtype) ? options_.dtype.value_or(dtype) : dtype;
  }

  void choose_bits(const LayerChoice& choice) {
    for (size_t i = 0; i < steps_.size(); ++i) {
      Step& step = steps_[i];
      if (!matrix_[i]) continue;
      const std::string module = without_weight(step.name);
      step.q = choice.of(module, step.shape.back());
      if (step.q || !step.first()) continue;
      auto ruled = [&](const LayerRule& rule) { return matches(rule, module); };
      const auto& rules = options_.recipe->layers;
      if (std::none_of(rules.begin(), rules.end(), ruled)) plan_.left_dense.push_back(module);
    }
  }

  void finish_config() {
    if (!layer_entries_.is_object()) return;
    for (const char* key : {"quantization", "quantization_config"}) {
      Json entry = config_.at(key);
      for (const auto& [module, q] : layer_entries_.members()) entry.set(module, q);
      config_.set(key, entry);
    }
  }

  void count(const Step& step) {
    auto same = [&](const StorageUse& use) { return use.quantization == step.q; };
    auto use = std::find_if(plan_.matrices.begin(), plan_.matrices.end(), same);
    if (use == plan_.matrices.end()) {
      plan_.matrices.push_back({.quantization = step.q});
      use = plan_.matrices.end() - 1;
    }
    ++use->matrices;
    use->elements += elements(step.shape);
  }

  void declare_tensors() {
    auto declare = [&](const Step& step, const std::string& name, Dtype dtype, int64_t columns) {
      std::vector<int64_t> shape(step.shape.begin(), step.shape.end());
      if (!shape.empty()) shape.back() = columns;
      if (step.row) shape.insert(shape.begin(), step.row->count);
      specs_.push_back({name, io::safetensors_dtype(dtype), shape});
      plan_.bytes += static_cast<int64_t>(*io::tensor_bytes(shape, size_t(size_of(dtype))));
    };
    for (const Step& step : steps_) {
      if (!step.first()) continue;
      const int64_t columns = step.shape.empty() ? 1 : step.shape.back();
      if (!step.q) {
        declare(step, step.name, step.dtype, columns);
        continue;
      }
      declare(step, step.name + ".weight", Dtype::U32, columns * step.q->bits / 32);
      declare(step, step.name + ".scales", step.dtype, columns / step.q->group_size);
      declare(step, step.name + ".biases", step.dtype, columns / step.q->group_size);
    }
    plan_.files = io::plan_safetensors(specs_, safetensors_options());
  }

  io::SafetensorsOptions safetensors_options() const {
    return {.shard_bytes = options_.shard_bytes, .parameters = plan_.parameters};
  }

  void check_room(const std::string& folder) const {
    uint64_t need = 0;
    for (const auto& file : plan_.files) need += file.bytes;
    struct statvfs disk{};
    if (statvfs(folder.c_str(), &disk) != 0) return;
    const uint64_t room = uint64_t{disk.f_bavail} * disk.f_frsize;
    if (need > room)
      throw_io("{}: the result takes {}, the disk has room for {}", printable(options_.target),
               human_size(need), human_size(room));
  }

  // Rows of a step: what they become, and the part of the source's bytes that they are.
  struct Piece {
    const Step* step;
    int64_t begin, end;
    Arrays parts = {};
  };

  std::vector<Piece> pieces() const {
    std::vector<Piece> all;
    for (const Step& step : steps_) {
      const int64_t rows = step.shape.empty() ? 1 : step.shape[0];
      const int64_t row = elements(step.shape) / std::max<int64_t>(rows, 1);
      int64_t most = std::max<int64_t>(kPieceElements / std::max<int64_t>(row, 1), 1);
      if (step.transposed) most = rows;  // its rows lie across all of the source
      for (int64_t begin = 0; begin < rows; begin += most)
        all.push_back({&step, begin, std::min(begin + most, rows)});
    }
    return all;
  }

  // The next piece is computed while one is written.
  void write_tensors(io::SafetensorsWriter& writer) {
    std::vector<Piece> all = pieces();
    Progress progress("converting", static_cast<uint64_t>(plan_.source_bytes),
                      Progress::Unit::Bytes);
    auto start = [&](size_t i) {
      if (i >= all.size()) return;
      all[i].parts = converted(*all[i].step, all[i].begin, all[i].end);
      async_eval(all[i].parts);
    };
    start(0);
    for (size_t i = 0; i < all.size(); ++i) {
      if (options_.between) options_.between();
      start(i + 1);
      const Step& step = *all[i].step;
      constexpr const char* ends[] = {".weight", ".scales", ".biases"};
      const Arrays parts = std::move(all[i].parts);
      eval(parts);
      for (size_t part = 0; part < parts.size(); ++part)
        writer.write(step.q ? step.name + ends[part] : step.name,
                     {parts[part].host_bytes().get(), static_cast<size_t>(parts[part].nbytes())});
      progress.advance(finish(all[i]));
    }
  }

  // Rows of a parameter of the source that lie together: a matrix or one part of a packed one.
  struct Rows {
    const models::StoredParameter* stored;
    int64_t first, count;  // elements
    Shape shape;
  };

  // `end` of the key, `columns` of a row.
  Rows source_rows(const Step& step, const std::string& end, int64_t columns, int64_t begin,
                   int64_t finish) const {
    const std::string key = end.empty() ? step.from.key : without_weight(step.from.key) + end;
    Shape shape = step.from.shape;
    if (!shape.empty()) shape.back() = columns;
    if (!step.transposed && !shape.empty()) shape[0] = finish - begin;
    const models::StoredParameter& stored = source_.parameters.at(key);
    const int64_t row = shape.empty() || shape[0] == 0 ? 0 : elements(shape) / shape[0];
    return {&stored, stored.first + (step.transposed ? 0 : begin * row), elements(shape), shape};
  }

  // Of a dense parameter itself; of a packed one packed, scales and biases.
  std::vector<Rows> all_source_rows(const Step& step, int64_t begin, int64_t end) const {
    const int64_t columns = step.from.shape.empty() ? 1 : step.from.shape.back();
    const auto& q = step.from.stored;
    if (!q) return {source_rows(step, "", columns, begin, end)};
    return {source_rows(step, ".weight", columns * q->bits / 32, begin, end),
            source_rows(step, ".scales", columns / q->group_size, begin, end),
            source_rows(step, ".biases", columns / q->group_size, begin, end)};
  }

  // Lets go of the source's rows; gives their bytes.
  uint64_t finish(const Piece& piece) const {
    uint64_t bytes = 0;
    for (const Rows& rows : all_source_rows(*piece.step, piece.begin, piece.end)) {
      const std::string& tensor = rows.stored->tensor;
      source_.checkpoint->let_go(tensor, rows.first, rows.count);
      bytes += static_cast<uint64_t>(rows.count * size_of(source_.checkpoint->dtype(tensor)));
    }
    return bytes;
  }

  // The result's rows: packed, scales and biases, or a dense array.
  Arrays converted(const Step& step, int64_t begin, int64_t end) const {
    const auto& stored = step.from.stored;
    Arrays in;
    for (const Rows& rows : all_source_rows(step, begin, end))
      in.push_back(source_.checkpoint->part(rows.stored->tensor, rows.first, rows.shape));
    if (stored && step.q) return {in[0], astype(in[1], step.dtype), astype(in[2], step.dtype)};
    Array dense =
        stored ? dequantize(in[0], in[1], in[2], stored->group_size, stored->bits) : in[0];
    if (step.transposed) dense = transpose(dense);
    dense = astype(dense, step.dtype);
    return step.q ? quantize(dense, step.q->group_size, step.q->bits) : Arrays{dense};
  }

  ConvertOptions options_;
  models::Inventory source_;
  ConversionPlan plan_;
  bool quantized_source_ = false;
  nn::Quantization standard_;  // of the result, if it is quantized
  Json config_, layer_entries_;
  std::vector<Step> steps_;
  std::vector<bool> matrix_;  // of each step, in the result
  std::vector<io::TensorSpec> specs_;
};

Conversion::Conversion(ConvertOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}
Conversion::~Conversion() = default;
const ConversionPlan& Conversion::plan() const { return impl_->plan(); }
void Conversion::run() { impl_->run(); }

}  // namespace mica::tune
