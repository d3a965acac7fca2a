// oneDNN's matrix product behind a C interface, which bench/ruler/adapters.py calls. A primitive is
// made once; `best` lets it choose the layout of the second operand, reordered once as an inference
// engine does with weights.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>

using Type = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;
using Desc = dnnl::memory::desc;

namespace {

struct Product {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::matmul primitive;
  dnnl::memory a, b, c;
};

Type type_of(int bits_and_kind) {
  switch (bits_and_kind) {
    case 0: return Type::f32;
    case 1: return Type::bf16;
    default: return Type::f16;
  }
}

dnnl::memory borrowed(Product& product, const Desc& desc, const void* data) {
  return {desc, product.engine, const_cast<void*>(data)};
}

std::unique_ptr<Product> make(const int64_t* sizes, bool ta, bool tb, Type type, bool best,
                              const void* a, const void* b, void* c) {
  auto product = std::make_unique<Product>();
  const auto [batch, m, n, k] = std::tuple(sizes[0], sizes[1], sizes[2], sizes[3]);
  const Tag rows = Tag::abc;
  const Tag columns = Tag::acb;
  const Desc a_desc({batch, m, k}, type, ta ? columns : rows);
  const Desc b_desc({batch, k, n}, type, tb ? columns : rows);
  const Desc c_desc({batch, m, n}, type, rows);
  const Desc b_wanted = best ? Desc({batch, k, n}, type, Tag::any) : b_desc;
  const dnnl::matmul::desc operation(a_desc, b_wanted, c_desc);
  const dnnl::matmul::primitive_desc chosen(operation, product->engine);
  product->primitive = dnnl::matmul(chosen);
  product->a = borrowed(*product, a_desc, a);
  product->b = borrowed(*product, b_desc, b);
  product->c = borrowed(*product, c_desc, c);
  if (chosen.weights_desc() != b_desc) {
    dnnl::memory packed(chosen.weights_desc(), product->engine);
    dnnl::reorder(product->b, packed).execute(product->stream, product->b, packed);
    product->stream.wait();
    product->b = packed;
  }
  return product;
}

}  // namespace

extern "C" {

// A product of (batch, m, k) and (batch, k, n), `sizes` in the order batch, m, n, k, of operands
// that stay the caller's; `ta`, `tb`: stored transposed. Type 0 float32, 1 bfloat16, 2 float16.
// Null and a message for what oneDNN cannot do.
void* bench_onednn_make(const int64_t* sizes, int ta, int tb, int type, int best, const void* a,
                        const void* b, void* c, char* message, size_t size) {
  try {
    return make(sizes, ta != 0, tb != 0, type_of(type), best != 0, a, b, c).release();
  } catch (const std::exception& error) {
    std::snprintf(message, size, "%s", error.what());
    return nullptr;
  }
}

int bench_onednn_run(void* handle) {
  try {
    auto& product = *static_cast<Product*>(handle);
    product.primitive.execute(
        product.stream,
        {{DNNL_ARG_SRC, product.a}, {DNNL_ARG_WEIGHTS, product.b}, {DNNL_ARG_DST, product.c}});
    product.stream.wait();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

void bench_onednn_free(void* handle) { delete static_cast<Product*>(handle); }

}  // extern "C"
