#include "models/random_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "io/checkpoint.h"
#include "io/safetensors_writer.h"
#include "models/load.h"
#include "models/registry.h"

namespace mica::models {

namespace {

constexpr double kDeviation = 0.02;

// --- Random numbers ------------------------------------------------------------------------------

// The n-th number of a stream (SplitMix64, Steele et al. 2014): any part of a tensor can be made
// by itself.
uint64_t random_word(uint64_t stream, uint64_t n) {
  uint64_t z = stream + (n + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// FNV-1a of the name, so that no two tensors share a stream.
uint64_t stream_of(std::string_view name, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return random_word(hash, seed);
}

// Where the standard normal distribution has reached `share`.
double normal_quantile(double share) {
  double low = -10, high = 10;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < share ? low : high) = middle;
  }
  return (low + high) / 2;
}

// --- What tensors are filled with ----------------------------------------------------------------

// A tensor is made of units that are made apart: `fill` writes units begin … end-1.
struct Filling {
  int64_t unit_bytes = 1;
  std::function<void(int64_t begin, int64_t end, std::byte* to)> fill;
};

// Random bytes become integers of `bits` bits that are distributed like a group of quantized
// normal weights.
struct Levels {
  std::array<uint8_t, 256> of{};
  double deviation = 1;  // from their middle, (2^bits - 1) / 2

  explicit Levels(int bits) {
    const double most = (1 << bits) - 1, widest = normal_quantile(255.5 / 256);
    double squares = 0;
    for (size_t i = 0; i < of.size(); ++i) {
      const double z = normal_quantile((static_cast<double>(i) + 0.5) / 256);
      of[i] = static_cast<uint8_t>(std::lround((z / widest + 1) / 2 * most));
      squares += (of[i] - most / 2) * (of[i] - most / 2);
    }
    deviation = std::sqrt(squares / 256);
  }
};

// A unit is eight integers, packed into `bits` bytes from the lowest bit on.
template <int bits>
void fill_packed(const Levels& levels, uint64_t stream, int64_t begin, int64_t end, std::byte* to) {
  for (int64_t unit = begin; unit < end; ++unit, to += bits) {
    const uint64_t random = random_word(stream, static_cast<uint64_t>(unit));
    uint64_t packed = 0;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      packed |= uint64_t{levels.of[random >> (8 * i) & 255]} << (bits * i);
    std::memcpy(to, &packed, bits);
  }
}

Filling packed_filling(int bits, uint64_t stream) {
  using Fill = void (*)(const Levels&, uint64_t, int64_t, int64_t, std::byte*);
  constexpr Fill fills[] = {nullptr,        nullptr,        fill_packed<2>,
                            fill_packed<3>, fill_packed<4>, fill_packed<5>,
                            fill_packed<6>, nullptr,        fill_packed<8>};
  return {bits,
          [levels = Levels(bits), stream, fill = fills[bits]](
              int64_t begin, int64_t end, std::byte* to) { fill(levels, stream, begin, end, to); }};
}

// A unit is four numbers out of 4096 equally likely ones.
template <class T>
Filling normal_filling(double center, uint64_t stream) {
  std::vector<T> values(4096);
  for (size_t i = 0; i < values.size(); ++i) {
    const double z = normal_quantile((static_cast<double>(i) + 0.5) / 4096);
    values[i] = T(static_cast<float>(center + kDeviation * z));
  }
  return {4 * sizeof(T),
          [values = std::move(values), stream](int64_t begin, int64_t end, std::byte* to) {
            for (int64_t unit = begin; unit < end; ++unit) {
              uint64_t random = random_word(stream, static_cast<uint64_t>(unit));
              for (int i = 0; i < 4; ++i, random >>= 16, to += sizeof(T))
                std::memcpy(to, &values[random & 4095], sizeof(T));
            }
          }};
}

// Scales differ by a fifth from group to group; the biases take the middle of the levels to zero.
template <class T>
Filling group_filling(int bits, bool biases, uint64_t stream) {
  const double scale = kDeviation / Levels(bits).deviation;
  const double factor = biases ? -((1 << bits) - 1) / 2.0 : 1;
  return {sizeof(T), [=](int64_t begin, int64_t end, std::byte* to) {
            for (int64_t unit = begin; unit < end; ++unit, to += sizeof(T)) {
              const auto random = random_word(stream, static_cast<uint64_t>(unit)) >> 40;
              const double own = 0.8 + 0.4 * static_cast<double>(random) / double(1 << 24);
              const T value(static_cast<float>(scale * own * factor));
              std::memcpy(to, &value, sizeof(T));
            }
          }};
}

// --- The model's tensors -------------------------------------------------------------------------

enum class Kind { Packed, Scales, Biases, Center, Noise };

struct Plan {
  std::vector<io::TensorSpec> tensors;
  std::vector<Kind> kinds;  // of each
};

// Lists what a model asks for, with every matrix packed if there is a quantization.
class Planner : public nn::Visitor {
 public:
  Planner(std::optional<nn::Quantization> quantization, Dtype dtype)
      : quantization_(quantization), dtype_(io::safetensors_dtype(dtype)) {}

  std::optional<nn::Quantization> quantization(const std::optional<nn::Quantization>&) override {
    packed_ = quantization_ ? path() : "";
    return quantization_;
  }
  Plan take() { return std::move(plan_); }

 protected:
  void on_parameter(const std::string& key, Array&, const Shape& shape) override {
    const std::string_view name = std::string_view(key).substr(key.rfind('.') + 1);
    const bool in_matrix = !packed_.empty() && key.starts_with(packed_ + '.');
    io::TensorSpec tensor{key, dtype_, {shape.begin(), shape.end()}};
    Kind kind = shape.size() == 1 && name == "weight" ? Kind::Center : Kind::Noise;
    if (in_matrix && name == "weight") {
      kind = Kind::Packed;
      tensor.dtype = "U32";
    } else if (in_matrix && name != "bias") {
      kind = name == "scales" ? Kind::Scales : Kind::Biases;
    }
    if (const auto& row = stack_row()) {
      if (row->index > 0) return;
      tensor.name = row->name + key.substr(path().size());
      tensor.shape.insert(tensor.shape.begin(), row->count);
    }
    plan_.tensors.push_back(std::move(tensor));
    plan_.kinds.push_back(kind);
  }

 private:
  std::optional<nn::Quantization> quantization_;
  std::string dtype_, packed_;  // path of the packed matrix that was visited last
  Plan plan_;
};

template <class T>
Filling filling_of(Kind kind, int bits, const std::string& name, uint64_t seed) {
  // A group's scale and bias are made of the same number.
  const std::string stem = name.substr(0, name.rfind('.'));
  switch (kind) {
    case Kind::Packed: return packed_filling(bits, stream_of(name, seed));
    case Kind::Scales: return group_filling<T>(bits, false, stream_of(stem, seed));
    case Kind::Biases: return group_filling<T>(bits, true, stream_of(stem, seed));
    case Kind::Center: return normal_filling<T>(1, stream_of(name, seed));
    case Kind::Noise: break;
  }
  return normal_filling<T>(0, stream_of(name, seed));
}

Filling filling_of(Kind kind, Dtype dtype, int bits, const std::string& name, uint64_t seed) {
  switch (dtype) {
    case Dtype::F32: return filling_of<float>(kind, bits, name, seed);
    case Dtype::F16: return filling_of<float16_t>(kind, bits, name, seed);
    case Dtype::BF16: return filling_of<bfloat16_t>(kind, bits, name, seed);
    default: throw_value("random weights are float32, float16 or bfloat16, not {}", dtype);
  }
}

// Makes a tensor piece by piece; `write` takes each piece.
void make_tensor(const Filling& filling, int64_t bytes,
                 const std::function<void(std::span<const std::byte>)>& write) {
  constexpr int64_t kPieceBytes = 8 << 20;
  const int64_t unit = filling.unit_bytes, units = (bytes + unit - 1) / unit;
  const int64_t piece = std::max<int64_t>(kPieceBytes / unit, 1);
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(piece, units) * unit));
  for (int64_t first = 0; first < units; first += piece) {
    const int64_t count = std::min(piece, units - first);
    const int64_t grain = std::max<int64_t>((64 << 10) / unit, 1);
    ThreadPool::shared().parallel_for(count, grain, [&](int64_t begin, int64_t end) {
      filling.fill(first + begin, first + end, buffer.data() + begin * unit);
    });
    // The last unit may be longer than what is left of the tensor.
    const int64_t size = std::min(count * unit, bytes - first * unit);
    write({buffer.data(), static_cast<size_t>(size)});
  }
}

int64_t bytes_of(const io::TensorSpec& tensor) {
  int64_t bytes = static_cast<int64_t>(io::safetensors_dtype_size(tensor.dtype));
  for (int64_t extent : tensor.shape) bytes *= extent;
  return bytes;
}

}  // namespace

void write_random_model(Json config, const std::string& folder, const RandomModelOptions& options) {
  std::optional<nn::Quantization> quantization;
  if (auto json = config.find("quantization")) quantization = read_quantization(*json);
  Planner planner(quantization, options.dtype);
  planner.module("", *make_model(config));
  const Plan plan = planner.take();
  int64_t total = 0;
  for (const io::TensorSpec& tensor : plan.tensors) total += bytes_of(tensor);
  Progress progress("writing random weights", static_cast<uint64_t>(total), Progress::Unit::Bytes);
  io::SafetensorsWriter writer(folder, plan.tensors, {.shard_bytes = uint64_t{5} << 30});
  auto make = [&](size_t i) {
    const io::TensorSpec& tensor = plan.tensors[i];
    const Filling filling =
        filling_of(plan.kinds[i], options.dtype, quantization ? quantization->bits : 0, tensor.name,
                   options.seed);
    make_tensor(filling, bytes_of(tensor), [&](std::span<const std::byte> piece) {
      writer.write(tensor.name, piece);
      progress.advance(piece.size());
      if (options.between_pieces) options.between_pieces();
    });
  };
  for (const auto& file : writer.files()) {
    for (size_t i : file.tensors) make(i);
  }
  config.set("torch_dtype", dtype_name(options.dtype));
  write_file(folder + "/config.json", config.dump(2) + '\n');
  writer.commit();
}

}  // namespace mica::models
