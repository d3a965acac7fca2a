// What evaluation spends its time on: every kernel with its shapes, bytes and arithmetic, and the
// phases around them.
//
//   start_profile();
//   … evaluate …
//   Profile profile = stop_profile();
//   print(profile_summary(profile, measured_ceilings()));   // core/profile_report.h
//   save_profile(profile, "trace.json");
//
// While nothing is recorded each evaluation pays for a few relaxed loads. While something is, a
// call costs some hundred nanoseconds more, between the kernels, not inside their times. One
// recording at a time; it takes in all threads.
//
// Bytes are what a call must move at least: each element of its inputs that it reads, once, and its
// outputs; operations that read or write a part of an operand (gathers, slice updates, attention up
// to a length, chosen experts) say so with a rule. Arithmetic (a multiplication and an addition
// count as two) is known for products and attention.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/ceilings.h"
#include "core/backend.h"

namespace mica {

// What a call needs.
struct Cost {
  double bytes = 0;
  double flops = 0;  // 0: not known
  Arithmetic arithmetic = Arithmetic::Float32;
};

// A rule for the calls of an operation on the host, whose data it may read. For the tables of
// operations, which set rules once; without one bytes are the operands'.
using CostRule = Cost (*)(const KernelCall& call);
void set_cost_rule(const Op& op, CostRule rule);
Cost cost_of(const KernelCall& call);
// Bytes of the elements of a view: those of broadcast axes once.
double view_bytes(const View& view);

enum class ProfileKind : uint8_t {
  Collect,  // finding the work of an evaluation
  Plan,     // numbering, planning, binding memory
  Run,      // the kernels of a plan, with what lies between them
  Kernel,
  Region,  // elementwise operations and reductions as one kernel
  Copy,    // to satisfy a layout
};

// A call with its operands' types and shapes; equal calls share one.
struct ProfileCall {
  struct Operand {
    Dtype dtype;
    Shape shape;
  };
  std::string name;  // of the operation; "multiply+add+sum" of a region
  std::vector<Operand> inputs, outputs;
};

struct ProfileEvent {
  ProfileKind kind;
  Arithmetic arithmetic = Arithmetic::Float32;
  int32_t thread;           // 0, 1, … in the order of their first events
  int32_t call;             // place in Profile::calls; of phases -1
  int64_t start, duration;  // nanoseconds; start counts from start_profile()
  double bytes, flops;      // as Cost
};

struct Profile {
  static constexpr size_t kMostEvents = size_t{1} << 21;
  std::vector<ProfileCall> calls;
  std::vector<ProfileEvent> events;  // in the order of their ends
  int64_t dropped = 0;               // events past kMostEvents
  int64_t duration = 0;              // nanoseconds from start to stop
};

// ValueError if something is being recorded, or nothing is. stop_profile waits for async_eval's
// work.
void start_profile();
Profile stop_profile();

namespace detail {

extern std::atomic<bool> profiling;
inline bool is_profiling() { return profiling.load(std::memory_order_relaxed); }
int64_t profile_clock();  // nanoseconds, of whatever start

// Records a phase from here to the end of the scope.
class ProfilePhase {
 public:
  explicit ProfilePhase(ProfileKind kind)
      : kind_(kind), start_(is_profiling() ? profile_clock() : -1) {}
  ~ProfilePhase() {
    if (start_ >= 0) [[unlikely]]
      end();
  }
  ProfilePhase(const ProfilePhase&) = delete;
  ProfilePhase& operator=(const ProfilePhase&) = delete;
  void end() noexcept;

 private:
  ProfileKind kind_;
  int64_t start_;
};

// Of a call that began at `start` and ends now. `region` null: a kernel's, or with `op` null a
// copy's.
void record_call(const Op* op, const Region* region, std::span<const View> inputs,
                 std::span<const View> outputs, const Cost& cost, int64_t start);

}  // namespace detail
}  // namespace mica
