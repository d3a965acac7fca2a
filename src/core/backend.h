// The interface of a device: allocate, copy, run. Backends are folders under src/backends/; the
// build generates the table of backends, and for each its table of kernels, from the file names.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "core/device.h"
#include "core/op.h"
#include "core/region.h"
#include "core/view.h"

namespace mica {

// What one kernel call gets. Inputs lie as the kernel's `layouts` ask; outputs are row-major and do
// not overlap inputs, except output 0 of an op that `updates_first_input` (then it already holds
// the content of input 0, whose own view must not be read) and where `Kernel::may_alias` allows it.
struct KernelCall {
  const Op* op = nullptr;
  const void* params = nullptr;
  std::span<const View> inputs;
  std::span<const View> outputs;
  std::span<std::byte> workspace;  // 64-byte aligned, as many bytes as the kernel asked for

  template <class P>
  const P& as() const {
    return *static_cast<const P*>(params);
  }
};

// What a kernel accepts of an input's layout; the run copies what does not fit (and counts the
// bytes).
enum class Layout : uint8_t {
  Contiguous,  // row-major without gaps
  Rows,        // last axis dense, the others any stride (zero and negative too)
  Any,
};

struct Kernel {
  void (*run)(const KernelCall&) = nullptr;
  // Layout of each input; the last entry stands for all further inputs.
  Layout layouts[6] = {Layout::Contiguous, Layout::Contiguous, Layout::Contiguous,
                       Layout::Contiguous, Layout::Contiguous, Layout::Contiguous};
  // Bytes of scratch memory, reserved with everything else before the plan runs. The views carry
  // shapes and dtypes; data is null.
  size_t (*workspace)(const KernelCall&) = nullptr;
  // Input i may share its memory with output 0 if shape and dtype are the same (bit i).
  uint8_t may_alias = 0;
  // False: this kernel does not handle these dtypes or shapes; the op's lowering is used instead.
  bool (*accepts)(const Application&) = nullptr;

  Layout layout_of(size_t input) const {
    return layouts[input < std::size(layouts) ? input : std::size(layouts) - 1];
  }
};

// Kernels of one backend by op.
class KernelTable {
 public:
  void add(const Op& op, const Kernel& kernel);
  const Kernel* find(const Op& op) const {
    size_t i = static_cast<size_t>(op.index);
    return i < kernels_.size() && kernels_[i].run ? &kernels_[i] : nullptr;
  }

 private:
  std::vector<Kernel> kernels_;
};

// A region made ready by a backend: registers assigned, functions looked up. Lives in the plan.
class RegionProgram {
 public:
  virtual ~RegionProgram() = default;
};

struct RegionCall {
  const RegionProgram* program = nullptr;
  const Region* region = nullptr;
  Shape space;                    // the iteration space
  std::span<const View> inputs;   // any layout; broadcast to `space` (same rank, strides 0)
  std::span<const View> outputs;  // row-major; may share memory with an input of the same layout
  std::span<const void* const> params;  // of the nodes, by RegionInstruction::node
  std::span<std::byte> workspace;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;
  virtual DeviceKind kind() const = 0;
  // True if this device reads and writes the host's memory directly.
  virtual bool shares_host_memory() const = 0;
  // Raw memory, 64-byte aligned; nullptr when there is none. Caching is done above.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory, size_t bytes) noexcept = 0;
  virtual void copy_from_host(void* to, const void* from, size_t bytes) = 0;
  virtual void copy_to_host(void* to, const void* from, size_t bytes) = 0;
  // Copies a strided view into row-major memory of the same device.
  virtual void copy(const View& from, const View& to) = 0;
  virtual const KernelTable& kernels() const = 0;
  // True if regions may contain this elementwise op with these dtypes.
  virtual bool has_elementwise(const Op& op) const = 0;
  virtual std::unique_ptr<RegionProgram> prepare(const Region& region) const = 0;
  virtual size_t region_workspace(const RegionCall& call) const = 0;
  virtual void run(const RegionCall& call) const = 0;
  // Waits until the work handed to the device is done.
  virtual void synchronize() {}
};

// All backends of this build, by DeviceKind; null where absent.
Backend* backend_of(DeviceKind kind);
Backend& backend_of(Device device);  // throws ValueError if this build has none

}  // namespace mica
