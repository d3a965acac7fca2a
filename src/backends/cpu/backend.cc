// The host's processors: memory, and the tables of kernels and vector operations.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "backends/cpu/copy.h"
#include "backends/cpu/region.h"

namespace mica::cpu {

void register_kernels(KernelTable& registry);  // generated

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// Memory of several megabytes comes straight from the system, aligned to huge pages: a kernel that
// streams through it then takes one page fault and one address translation per 2 MiB.
void* map_huge(size_t bytes) {
  size_t want = (bytes + 4095) / 4096 * 4096;
  void* raw =
      mmap(nullptr, want + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto begin = reinterpret_cast<uintptr_t>(raw);
  uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned != begin) munmap(raw, aligned - begin);
  uintptr_t end = aligned + want;
  if (begin + want + kHugePage != end)
    munmap(reinterpret_cast<void*>(end), begin + kHugePage - aligned);
  madvise(reinterpret_cast<void*>(aligned), want, MADV_HUGEPAGE);
  return reinterpret_cast<void*>(aligned);
}

class CpuBackend final : public Backend {
 public:
  CpuBackend() {
    OpRegistry::shared();  // gives operations their index
    register_kernels(kernels_);
  }
  const char* name() const override { return "cpu"; }
  DeviceKind kind() const override { return DeviceKind::Cpu; }
  bool shares_host_memory() const override { return true; }

  void* allocate(size_t bytes) override {
    if (bytes >= kHugePage) return map_huge(bytes);
    return std::aligned_alloc(64, bytes == 0 ? 64 : (bytes + 63) / 64 * 64);
  }
  void release(void* memory, size_t bytes) noexcept override {
    if (bytes >= kHugePage)
      munmap(memory, (bytes + 4095) / 4096 * 4096);
    else
      std::free(memory);
  }
  void copy_from_host(void* to, const void* from, size_t bytes) override {
    if (bytes) std::memcpy(to, from, bytes);
  }
  void copy_to_host(void* to, const void* from, size_t bytes) override {
    if (bytes) std::memcpy(to, from, bytes);
  }
  void copy(const View& from, const View& to) override { copy_strided(from, to); }

  const KernelTable& kernels() const override { return kernels_; }
  bool has_elementwise(const Op& op) const override { return cpu::has_elementwise(op); }
  std::unique_ptr<RegionProgram> prepare(const Region& region) const override {
    return prepare_region(region);
  }
  size_t region_workspace(const RegionCall& call) const override {
    return cpu::region_workspace(call);
  }
  void run(const RegionCall& call) const override { run_region(call); }

 private:
  KernelTable kernels_;
};

}  // namespace

Backend& backend() {
  static CpuBackend backend;
  return backend;
}

}  // namespace mica::cpu
