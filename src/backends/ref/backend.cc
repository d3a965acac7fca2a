// The reference device: poisoned memory at biased addresses, naive kernels.
#include <cstdlib>
#include <cstring>

#include "backends/ref/ref.h"
#include "backends/ref/region.h"

#ifdef MICA_ADDRESS_SANITIZER
#include <sanitizer/lsan_interface.h>
#endif

namespace mica::ref {

void register_kernels(KernelTable& registry);  // generated

namespace {

constexpr int kPoison = 0xff;  // NaN in every floating type

class RefBackend final : public Backend {
 public:
  RefBackend() {
    OpRegistry::shared();  // gives operations their index
    register_kernels(kernels_);
  }
  const char* name() const override { return "ref"; }
  DeviceKind kind() const override { return DeviceKind::Ref; }
  bool shares_host_memory() const override { return false; }

  void* allocate(size_t bytes) override {
    void* real = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + (bytes == 0 ? 64 : 0));
    if (!real) return nullptr;
    std::memset(real, kPoison, bytes);
#ifdef MICA_ADDRESS_SANITIZER
    __lsan_ignore_object(real);  // the leak checker does not know biased addresses
#endif
    return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(real) + kBias);
  }
  void release(void* memory, size_t bytes) noexcept override {
    if (!memory) return;
    std::memset(unbias(memory), kPoison, bytes);
    std::free(unbias(memory));
  }
  void copy_from_host(void* to, const void* from, size_t bytes) override {
    if (bytes) std::memcpy(unbias(to), from, bytes);
  }
  void copy_to_host(void* to, const void* from, size_t bytes) override {
    if (bytes) std::memcpy(to, unbias(from), bytes);
  }
  void copy(const View& from, const View& to) override {
    size_t size = static_cast<size_t>(size_of(from.dtype));
    std::byte* out = unbias(to.data);
    for_each(from.shape, [&](const Dims& index) {
      std::memcpy(out, unbias(from.data) + offset(from, index) * static_cast<int64_t>(size), size);
      out += size;
    });
  }

  const KernelTable& kernels() const override { return kernels_; }
  bool has_elementwise(const Op& op) const override { return ref::has_elementwise(op); }
  std::unique_ptr<RegionProgram> prepare(const Region&) const override {
    return std::make_unique<RegionProgram>();
  }
  size_t region_workspace(const RegionCall&) const override { return 0; }
  void run(const RegionCall& call) const override { run_region(call); }

 private:
  KernelTable kernels_;
};

}  // namespace

Backend& backend() {
  static RefBackend backend;
  return backend;
}

}  // namespace mica::ref
