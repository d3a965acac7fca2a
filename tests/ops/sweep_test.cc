// One sweep over the table of operations. Every op, with each of its samples:
//   on every device and floating type against ref in float64; on inputs that do not lie
//   contiguously; fused with its neighbours against one by one; vjp against central differences;
//   jvp against vjp; vmap against a loop.
// An op without samples fails it, and so does a sample that does not apply its op.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/counters.h"
#include "core/trace.h"
#include "ops/elementwise.h"
#include "ops/join.h"
#include "ops/reduce.h"
#include "ops/sweep_support.h"
#include "transforms/autograd.h"
#include "transforms/vmap.h"

namespace mica::sweep {
namespace {

constexpr DeviceKind kDevices[] = {DeviceKind::Ref, DeviceKind::Cpu};
constexpr Dtype kFloating[] = {Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16};

// Runs `body` and makes an exception a failure with its text, so that the next check still runs.
template <class Body>
void guarded(const std::string& what, Body body) {
  SCOPED_TRACE(what);
  try {
    body();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "threw: " << error.what();
  }
}

std::string dtypes_label(DeviceKind device, Dtype dtype) {
  return std::string(device_name({device})) + " " + dtype_name(dtype);
}

void expect_close(const Arrays& actual, const Arrays& expected, double factor) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i)
    EXPECT_TRUE(close(actual[i], expected[i], factor * tolerance_of(actual[i].dtype())))
        << "output " << i;
}

class Case {
 public:
  Case(const Op& op, const Sample& sample)
      : op_(op), sample_(sample), random_(std::hash<std::string>()(sample.label)) {
    drawn_ = draw(sample, random_);
    for (Dtype dtype : kFloating) {
      if (dtype == Dtype::F32 || has_free_dtype(sample)) dtypes_.push_back(dtype);
    }
  }

  void run() {
    guarded("graph", [&] { check_graph(); });
    for (Dtype dtype : dtypes_) {
      guarded(std::string("values ") + dtype_name(dtype), [&] { check_values(dtype); });
    }
    for (DeviceKind device : kDevices) {
      guarded("layouts " + dtypes_label(device, Dtype::F32), [&] { check_layouts(device); });
    }
    guarded("fusion", [&] { check_fusion(); });
    guarded("derivatives", [&] { check_derivatives(); });
    guarded("batching", [&] { check_batching(); });
  }

 private:
  Arrays inputs(Dtype dtype, Dtype through) const {
    return make_inputs(sample_, drawn_, dtype, through);
  }
  Arrays inputs(Dtype dtype) const { return inputs(dtype, dtype); }
  // What ref says in float64 of the values that a run in `dtype` sees.
  Arrays expected(Dtype dtype) const {
    OnDevice ref(DeviceKind::Ref);
    Arrays outputs =
        sample_.apply(inputs(has_free_dtype(sample_) ? Dtype::F64 : Dtype::F32, dtype));
    eval(outputs);
    return outputs;
  }

  void check_graph() {
    Arrays given = inputs(Dtype::F32);
    EXPECT_TRUE(applies(sample_.apply(given), op_)) << "the sample does not apply the op";
  }

  void check_values(Dtype dtype) {
    Arrays wanted = expected(dtype);
    for (DeviceKind device : kDevices) {
      SCOPED_TRACE(device_name({device}));
      OnDevice on(device);
      Arrays given = inputs(dtype);
      Arrays outputs = sample_.apply(given);
      eval(outputs);
      expect_close(outputs, wanted, sample_.tolerance);
      Arrays fresh = inputs(dtype);
      for (size_t i = 0; i < given.size(); ++i)
        EXPECT_EQ(bytes_of(given[i]), bytes_of(fresh[i])) << "input " << i << " was changed";
    }
  }

  void check_layouts(DeviceKind device) {
    Arrays wanted = expected(Dtype::F32);
    OnDevice on(device);
    for (Placement placement : {Placement::Transposed, Placement::Strided, Placement::Reversed}) {
      SCOPED_TRACE("placement " + std::to_string(static_cast<int>(placement)));
      Arrays given = inputs(Dtype::F32);
      for (Array& input : given) input = placed(input, placement);
      expect_close(sample_.apply(given), wanted, sample_.tolerance);
    }
  }

  // The op between elementwise neighbours, in one plan and each stage on its own.
  void check_fusion() {
    for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
      Arrays given = inputs(dtype);
      auto stages = [&](bool one_by_one) {
        auto settle = [&](const Arrays& arrays) {
          if (one_by_one) {
            for (const Array& array : arrays) array.eval();
          }
        };
        Arrays before = given;
        for (Array& array : before) {
          if (is_floating(array.dtype())) array = multiply(array, 1);
        }
        settle(before);
        Arrays outputs = sample_.apply(before);
        settle(outputs);
        for (Array& output : outputs) {
          if (is_floating(output.dtype())) output = multiply(output, 0.75);
        }
        settle(outputs);
        for (Array& output : outputs) {
          if (is_floating(output.dtype())) output = add(output, 0.3);
        }
        eval(outputs);
        return outputs;
      };
      Arrays fused = stages(false), separate = stages(true);
      for (size_t i = 0; i < fused.size(); ++i)
        EXPECT_EQ(bytes_of(fused[i]), bytes_of(separate[i]))
            << dtype_name(dtype) << ", output " << i << ": fused differs from one by one";
    }
  }

  // Which inputs may be differentiated by, and the function of those alone.
  std::vector<size_t> differentiable() const {
    std::vector<size_t> places;
    for (size_t i = 0; i < sample_.inputs.size(); ++i) {
      const Sample::Input& input = sample_.inputs[i];
      if (is_floating(input.dtype) && !input.fixed_dtype && input.differentiable)
        places.push_back(i);
    }
    return places;
  }
  ArraysFunction of_places(const std::vector<size_t>& places, const Arrays& all) const {
    return [=, this](const Arrays& some) {
      Arrays given = all;
      for (size_t i = 0; i < places.size(); ++i) given[places[i]] = some[i];
      Arrays outputs = sample_.apply(given);
      std::erase_if(outputs, [](const Array& a) { return !is_floating(a.dtype()); });
      return outputs;
    };
  }

  Arrays normals_like(const Arrays& arrays, Dtype dtype) {
    Arrays result;
    for (const Array& array : arrays) {
      Drawn drawn{array.shape(), draw_normal(static_cast<size_t>(array.size()), random_)};
      result.push_back(make_array(drawn, dtype, dtype));
    }
    return result;
  }
  static double inner(const Arrays& a, const Arrays& b) {
    double total = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      auto x = values_of(a[i]), y = values_of(b[i]);
      for (size_t k = 0; k < x.size(); ++k) total += x[k] * y[k];
    }
    return total;
  }

  void check_derivatives() {
    auto places = differentiable();
    if (places.empty()) return;
    Arrays cotangents, tangents, reference;
    {
      OnDevice ref(DeviceKind::Ref);
      Arrays all = inputs(Dtype::F64, Dtype::F32);
      ArraysFunction f = of_places(places, all);
      Arrays primals;
      for (size_t place : places) primals.push_back(all[place]);
      Arrays outputs = f(primals);
      if (outputs.empty()) return;
      cotangents = normals_like(outputs, outputs[0].dtype());
      tangents = normals_like(primals, Dtype::F64);
      reference = vjp(f, primals, cotangents).derivatives;
      bool precise = std::all_of(outputs.begin(), outputs.end(),
                                 [](const Array& a) { return a.dtype() == Dtype::F64; });
      if (precise) {
        check_differences(f, primals, cotangents, reference);
        auto gradient = [&](const Arrays& at) { return vjp(f, at, cotangents).derivatives; };
        guarded("second derivatives", [&] {
          Arrays weights = normals_like(primals, Dtype::F64);
          check_differences(gradient, primals, weights,
                            vjp(gradient, primals, weights).derivatives);
        });
      }
      Arrays pushed = jvp(f, primals, tangents).derivatives;
      double forward = inner(pushed, cotangents), backward = inner(tangents, reference);
      double allowed = precise ? 1e-9 : 1e-6;
      EXPECT_NEAR(forward, backward, allowed * (1 + std::fabs(forward) + std::fabs(backward)))
          << "jvp and vjp are not transposes";
    }
    check_derivative_on_cpu(places, cotangents, reference);
  }

  // Each input on its own, along two random directions.
  void check_differences(const ArraysFunction& f, const Arrays& primals, const Arrays& cotangents,
                         const Arrays& gradients) {
    constexpr double kStep = 1e-6;
    auto at = [&](size_t place, const Array& direction, double step) {
      Arrays moved = primals;
      moved[place] = add(moved[place], multiply(direction, step));
      return inner(f(moved), cotangents);
    };
    for (size_t i = 0; i < primals.size(); ++i) {
      ASSERT_EQ(gradients[i].shape(), primals[i].shape());
      for (int round = 0; round < 2; ++round) {
        Array direction = normals_like({primals[i]}, Dtype::F64)[0];
        double difference = (at(i, direction, kStep) - at(i, direction, -kStep)) / (2 * kStep);
        double given = inner({direction}, {gradients[i]});
        EXPECT_NEAR(given, difference,
                    1e-6 * sample_.tolerance * (1 + std::fabs(difference) + std::fabs(given)))
            << "vjp by input " << i << " against differences";
      }
    }
  }

  void check_derivative_on_cpu(const std::vector<size_t>& places, const Arrays& cotangents,
                               const Arrays& reference) {
    Arrays all = inputs(Dtype::F32), primals, seeds;
    for (size_t place : places) primals.push_back(all[place]);
    for (const Array& cotangent : cotangents) seeds.push_back(astype(cotangent, Dtype::F32));
    eval(seeds);
    expect_close(vjp(of_places(places, all), primals, seeds).derivatives, reference,
                 10 * sample_.tolerance);
  }

  void check_batching() {
    std::vector<BatchAxes> choices;
    size_t count = sample_.inputs.size();
    if (count == 0) return;
    choices.push_back(BatchAxes(count, 0));
    choices.push_back(BatchAxes(count, -1));
    for (size_t i = 0; i < count && count > 1; ++i) {
      BatchAxes one(count, std::nullopt);
      one[i] = 0;
      choices.push_back(one);
    }
    for (const BatchAxes& axes : choices) {
      std::string label;
      for (auto axis : axes) label += axis ? std::to_string(*axis) + " " : "none ";
      guarded("axes " + label, [&] { check_vmap(axes); });
    }
  }

  // One set of inputs per element of the batch; what is not batched is the same in all.
  std::vector<Arrays> draw_examples(const BatchAxes& axes, int64_t extent) {
    std::vector<Arrays> examples;
    Arrays shared = inputs(Dtype::F32);
    for (int64_t b = 0; b < extent; ++b) {
      examples.push_back(make_inputs(sample_, draw(sample_, random_), Dtype::F32, Dtype::F32));
      for (size_t i = 0; i < shared.size(); ++i) {
        if (!axes[i]) examples.back()[i] = shared[i];
      }
    }
    return examples;
  }

  static Arrays stacked(const BatchAxes& axes, const std::vector<Arrays>& examples) {
    Arrays batched = examples[0];
    for (size_t i = 0; i < batched.size(); ++i) {
      if (!axes[i]) continue;
      Arrays parts;
      for (const Arrays& example : examples) parts.push_back(example[i]);
      batched[i] = stack(parts, *axes[i]).eval();
    }
    return batched;
  }

  Arrays run_vmap(const BatchAxes& axes, const Arrays& batched) const {
    return vmap([&](const Arrays& a) { return sample_.apply(a); }, axes)(batched);
  }

  void check_vmap(const BatchAxes& axes) {
    std::vector<Arrays> examples = draw_examples(axes, 3);
    Arrays outputs = run_vmap(axes, stacked(axes, examples));
    std::vector<Arrays> singles(outputs.size());
    for (const Arrays& example : examples) {
      Arrays one = sample_.apply(example);
      for (size_t i = 0; i < one.size(); ++i) singles[i].push_back(one[i]);
    }
    for (size_t i = 0; i < outputs.size(); ++i)
      EXPECT_TRUE(close(outputs[i], stack(singles[i]),
                        4 * sample_.tolerance * tolerance_of(outputs[i].dtype())))
          << "vmap differs from a loop, output " << i;
    if ((op_.vmap || op_.lower) && !batches_a_table(axes)) check_graph_size(axes);
  }

  // Tables that nobody differentiates by (wavelengths) may be batched by a loop.
  bool batches_a_table(const BatchAxes& axes) const {
    for (size_t i = 0; i < axes.size(); ++i) {
      const Sample::Input& input = sample_.inputs[i];
      if (axes[i] && is_floating(input.dtype) && !input.differentiable) return true;
    }
    return false;
  }

  void check_graph_size(const BatchAxes& axes) {
    auto nodes = [&](int64_t extent) {
      Arrays batched = stacked(axes, draw_examples(axes, extent));
      int64_t before = counters().nodes;
      run_vmap(axes, batched);
      return counters().nodes - before;
    };
    EXPECT_EQ(nodes(2), nodes(9)) << "the graph grows with the batch";
  }

  const Op& op_;
  const Sample& sample_;
  std::mt19937_64 random_;
  std::vector<Drawn> drawn_;
  std::vector<Dtype> dtypes_;
};

class Sweep : public ::testing::TestWithParam<const Op*> {};

TEST_P(Sweep, EverySample) {
  const Op& op = *GetParam();
  ASSERT_NE(op.samples, nullptr) << op.name << " has no samples";
  std::vector<Sample> samples = op.samples();
  ASSERT_FALSE(samples.empty()) << op.name << " has no samples";
  for (const Sample& sample : samples) {
    SCOPED_TRACE(std::string(op.name) + ", sample \"" + sample.label + "\"");
    Case(op, sample).run();
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, Sweep,
                         ::testing::ValuesIn(OpRegistry::shared().ops().begin(),
                                             OpRegistry::shared().ops().end()),
                         [](const auto& info) { return std::string(info.param->name); });

}  // namespace
}  // namespace mica::sweep
