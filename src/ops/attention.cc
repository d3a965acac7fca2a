#include "ops/attention.h"

#include "base/error.h"
#include "ops/attention_rules.h"
#include "ops/elementwise.h"
#include "ops/registry.h"
#include "ops/shape.h"

namespace mica {

using namespace ops;

namespace {

void check_shapes(const Array& q, const Array& k, const Array& v) {
  for (const Array& a : {q, k, v}) {
    if (a.rank() != 4)
      throw_value("[attention] q, k and v need four axes, got {}, {} and {}", q.shape(), k.shape(),
                  v.shape());
    if (!is_floating(a.dtype()))
      throw_value("[attention] q, k and v must be floating, got {}, {} and {}", q.dtype(),
                  k.dtype(), v.dtype());
  }
  if (k.shape(0) != q.shape(0) || v.shape(0) != q.shape(0))
    throw_value("[attention] batch sizes differ: q {}, k {}, v {}", q.shape(), k.shape(),
                v.shape());
  if (k.shape(1) != v.shape(1) || k.shape(2) != v.shape(2))
    throw_value("[attention] k {} and v {} differ in heads or length", k.shape(), v.shape());
  if (q.shape(3) != k.shape(3))
    throw_value("[attention] head sizes of q {} and k {} differ", q.shape(), k.shape());
  if (k.shape(1) == 0 ? q.shape(1) != 0 : q.shape(1) % k.shape(1) != 0)
    throw_value("[attention] {} query heads are no multiple of {} key heads", q.shape(1),
                k.shape(1));
}

// One int32 for each sequence.
Array sequence_numbers(const Array& a, const char* what, int64_t batch, Stream s) {
  if (!is_integer(a.dtype()))
    throw_value("[attention] {} must be integers, got {}", what, a.dtype());
  if (a.rank() > 1 || (a.rank() == 1 && a.shape(0) != batch))
    throw_value("[attention] {} must have shape () or ({},), got {}", what, batch, a.shape());
  return broadcast_to(astype(a, Dtype::I32, s), {batch}, s);
}

Array four_axes(const Array& mask, const Array& q, const Array& k, Stream s) {
  const Shape full{q.shape(0), q.shape(1), q.shape(2), k.shape(2)};
  if (mask.dtype() != Dtype::Bool && !is_floating(mask.dtype()))
    throw_value("[attention] the mask must be bool or floating, got {}", mask.dtype());
  Shape shape(4, 1);
  bool fits = mask.rank() <= 4;
  for (size_t i = 0; fits && i < mask.rank(); ++i) {
    const size_t at = 4 - mask.rank() + i;
    shape[at] = mask.shape()[i];
    fits = shape[at] == 1 || shape[at] == full[at];
  }
  if (!fits)
    throw_value("[attention] the mask's shape {} does not broadcast to {}", mask.shape(), full);
  return reshape(mask, shape, s);
}

}  // namespace

Array attention(const Array& q, const Array& k, const Array& v, const AttentionOptions& options,
                Stream s) {
  check_shapes(q, k, v);
  if (options.window < 0) throw_value("[attention] negative window {}", options.window);
  if (options.ring && !options.lengths.defined())
    throw_value("[attention] a ring of keys needs lengths");
  Arrays inputs{q, k, v};
  if (promote(promote(q.dtype(), k.dtype()), v.dtype()) == Dtype::F64)
    for (Array& a : inputs) a = astype(a, Dtype::F64, s);
  const int64_t batch = q.shape(0);
  if (options.offsets.defined())
    inputs.push_back(sequence_numbers(options.offsets, "offsets", batch, s));
  if (options.lengths.defined())
    inputs.push_back(sequence_numbers(options.lengths, "lengths", batch, s));
  if (options.mask.defined()) inputs.push_back(four_axes(options.mask, q, k, s));
  AttentionParams params{options.scale,
                         options.causal,
                         options.window,
                         options.softcap,
                         options.ring,
                         options.offsets.defined(),
                         options.lengths.defined(),
                         options.mask.defined()};
  return apply(attention_op, std::span<const Array>(inputs), params, s);
}

namespace ops {

namespace {

void attention_infer(const Application& app, std::span<OutputSpec> outputs) {
  const Array &q = app.inputs[0], &k = app.inputs[1], &v = app.inputs[2];
  outputs[0] = {{q.shape(0), q.shape(1), q.shape(2), v.shape(3)},
                promote(promote(q.dtype(), k.dtype()), v.dtype())};
}

void attention_vjp_infer(const Application& app, std::span<OutputSpec> outputs) {
  for (size_t i = 0; i < 3; ++i) outputs[i] = {app.inputs[i].shape(), app.inputs[i].dtype()};
}

Array attention_of_values(const Array& q, const Array& k, const Array& v, double scale,
                          const Value& mask, Stream s) {
  AttentionOptions options{.scale = scale};
  if (const auto* kind = std::get_if<std::string>(&mask)) {
    if (*kind != "causal")
      throw_value("[scaled_dot_product_attention] unknown mask '{}'; known: 'causal'", *kind);
    options.causal = true;
  } else if (const auto* array = std::get_if<Array>(&mask)) {
    options.mask = *array;
  } else if (!std::holds_alternative<std::monostate>(mask)) {
    throw_type("scaled_dot_product_attention() argument 'mask' must be None, str or array, got {}",
               value_kind(mask));
  }
  return attention(q, k, v, options, s);
}

}  // namespace

const Op attention_op{.name = "attention",
                      .params = &params_type<AttentionParams>,
                      .infer = &attention_infer,
                      .vjp = &attention_vjp,
                      .jvp = &attention_jvp,
                      .vmap = &attention_vmap,
                      .lower = &attention_lower,
                      .samples = &attention_samples};
const Op attention_vjp_op{.name = "attention_vjp",
                          .params = &params_type<AttentionParams>,
                          .outputs = 3,
                          .infer = &attention_vjp_infer,
                          .vmap = &attention_vjp_vmap,
                          .lower = &attention_vjp_lower,
                          .samples = &attention_vjp_samples};

void attention_ops(Registry& registry) {
  registry.ops.add(attention_op);
  registry.ops.add(attention_vjp_op);
  registry.functions.add(
      "fast.scaled_dot_product_attention",
      "q: array, k: array, v: array, *, scale: float, mask: None | str | array = None",
      "softmax(scale * q @ k.T + mask) @ v, without the matrix of scores.\n\n"
      "q has shape (B, H, L, K), k (B, G, S, K), v (B, G, S, V), H a multiple of G: keys and "
      "values\n"
      "are not repeated. `mask` is None, 'causal' (the last query aligned with the last key), or\n"
      "an array that broadcasts to (B, H, L, S): bool (True: seen) or floating (added). The "
      "result\n"
      "is (B, H, L, V) in the promoted dtype; softmax is float32. A query that sees no key gives\n"
      "zeros. ValueError for shapes that do not fit.",
      [](const Array& q, const Array& k, const Array& v, double scale, const Value& mask,
         Stream s) { return attention_of_values(q, k, v, scale, mask, s); });
  registry.functions.add(
      "fast.attention",
      "q: array, k: array, v: array, *, scale: float, causal: bool = False, window: int = 0, "
      "softcap: float = 0.0, ring: bool = False, offsets: array | None = None, "
      "lengths: array | None = None, mask: array | None = None",
      "scaled_dot_product_attention over a cache of keys, with masks given by numbers.\n\n"
      "`lengths` (B,) counts the positions known so far (default S), `offsets` (B,) gives the\n"
      "position of the first query (default lengths - L). Slot s of the cache holds position s, "
      "or\n"
      "with `ring` the latest position p with p % S == s. A query at position i sees position p "
      "if\n"
      "p < length, with `causal` if p <= i, with a `window` if i - p < window, and as `mask` "
      "says.\n"
      "`softcap` c replaces a score x by c * tanh(x / c). Slots that no query sees are not read.",
      [](const Array& q, const Array& k, const Array& v, double scale, bool causal, int64_t window,
         double softcap, bool ring, const std::optional<Array>& offsets,
         const std::optional<Array>& lengths, const std::optional<Array>& mask, Stream s) {
        AttentionOptions options{scale,
                                 causal,
                                 window,
                                 softcap,
                                 ring,
                                 offsets.value_or(Array()),
                                 lengths.value_or(Array()),
                                 mask.value_or(Array())};
        return attention(q, k, v, options, s);
      });
}

}  // namespace ops
}  // namespace mica
