// What a recording holds and what is told of it.
#include "core/profiler.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <thread>

#include "base/json.h"
#include "core/profile_report.h"
#include "ops/elementwise.h"
#include "ops/index.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"
#include "tests/core/profiling.h"

namespace mica {
namespace {

using testing::call_of;
using testing::calls_in;
using testing::counting;
using testing::profile_of;

TEST(ProfilerTest, RecordsCallsWithTheirOperands) {
  Array a = counting({2, 3}), b = counting({3, 4});
  std::string text;
  ProfileEvent event = call_of(matmul(a, b), &text);
  EXPECT_EQ(text, "matmul: float32 (2, 3), float32 (3, 4) -> float32 (2, 4)");
  EXPECT_EQ(event.kind, ProfileKind::Kernel);
  EXPECT_EQ(event.bytes, 4 * (6 + 12 + 8));
  EXPECT_EQ(event.flops, 2 * 2 * 3 * 4);
  Array y = sum(a * a + 1.0f);
  event = call_of(y, &text);
  EXPECT_EQ(text, "multiply+add+sum: float32 (2, 3) -> float32 ()");
  EXPECT_EQ(event.kind, ProfileKind::Region);
  EXPECT_EQ(event.bytes, 4 * (6 + 1));
}

TEST(ProfilerTest, PhasesHoldTheCalls) {
  Array x = counting({64, 64});
  Profile profile = profile_of([&] {
    for (int i = 0; i < 3; ++i) matmul(x, x).eval();
  });
  std::map<ProfileKind, int> kinds;
  for (const ProfileEvent& event : profile.events) {
    ++kinds[event.kind];
    EXPECT_GE(event.start, 0);
    EXPECT_GE(event.duration, 0);
    EXPECT_LE(event.start + event.duration, profile.duration);
    EXPECT_EQ(event.thread, 0);
    if (event.call < 0) continue;
    bool inside = false;
    for (const ProfileEvent& run : profile.events)
      inside |= run.kind == ProfileKind::Run && run.start <= event.start &&
                event.start + event.duration <= run.start + run.duration;
    EXPECT_TRUE(inside);
  }
  for (ProfileKind kind :
       {ProfileKind::Collect, ProfileKind::Plan, ProfileKind::Run, ProfileKind::Kernel})
    EXPECT_EQ(kinds[kind], 3) << static_cast<int>(kind);
  EXPECT_EQ(profile.calls.size(), 1u);
}

TEST(ProfilerTest, RecordsOnlyFromStartToStop) {
  Array x = counting({8});
  exp(x).eval();
  EXPECT_TRUE(profile_of([] {}).events.empty());
  EXPECT_EQ(calls_in(profile_of([&] { exp(x).eval(); })).size(), 1u);
  exp(x).eval();
  EXPECT_TRUE(profile_of([] {}).events.empty());
  expect_error(ErrorKind::Value, "nothing is being recorded", [] { stop_profile(); });
  start_profile();
  expect_error(ErrorKind::Value, "already under way", [] { start_profile(); });
  stop_profile();
}

TEST(ProfilerTest, TakesInAllThreads) {
  Array x = counting({8});
  Profile profile = profile_of([&] {
    exp(x).eval();
    std::thread([&] { sin(x).eval(); }).join();
    Array y = cos(x);
    async_eval(std::span<const Array>(&y, 1));
  });
  std::set<int32_t> threads;
  std::set<std::string> names;
  for (const ProfileEvent& event : calls_in(profile)) {
    threads.insert(event.thread);
    names.insert(profile.calls[static_cast<size_t>(event.call)].name);
  }
  EXPECT_EQ(names, (std::set<std::string>{"cos", "exp", "sin"}));
  EXPECT_EQ(threads, (std::set<int32_t>{0, 1, 2}));
}

TEST(ProfilerTest, AFailedCallIsNotOne) {
  Array x = counting({4, 2});
  Profile profile = profile_of([&] {
    expect_error(ErrorKind::Index, "7", [&] { take(x, Array::from<int32_t>({7}, {1}), 0).eval(); });
    exp(x).eval();
  });
  ASSERT_EQ(calls_in(profile).size(), 1u);
  EXPECT_EQ(profile.calls[0].name, "exp");
}

TEST(ProfilerTest, OtherDevicesAreNotRead) {
  Array x = counting({4, 2});
  Stream ref{{DeviceKind::Ref}};
  Array y = take(x, Array::from<int32_t>({3, 1}, {2}), 0, ref);
  EXPECT_EQ(calls_in(profile_of([&] { y.eval(); })).size(), 1u);
}

Profile made_up() {
  Profile profile;
  profile.calls = {{"slow", {{Dtype::F32, {2, 3}}}, {{Dtype::F16, {2}}}}, {"fast", {}, {}}};
  auto call = [](int32_t of, int64_t start, int64_t duration, double bytes, double flops,
                 Arithmetic arithmetic) {
    return ProfileEvent{ProfileKind::Kernel, arithmetic, 0, of, start, duration, bytes, flops};
  };
  profile.events = {call(1, 0, 1000, 0, 500, Arithmetic::Int8),
                    call(0, 1000, 2000, 1000, 100, Arithmetic::Float32),
                    call(0, 3000, 6000, 100, 6000, Arithmetic::Bfloat16)};
  profile.events.push_back({ProfileKind::Run, Arithmetic::Float32, 1, -1, 0, 9500, 0, 0});
  profile.duration = 10000;
  profile.dropped = 5;
  return profile;
}

TEST(ProfileReportTest, OperationsByTimeWithTheirShare) {
  Profile profile = made_up();
  // Nanoseconds: a byte and a float operation take 1, a bfloat16 and an 8-bit one half.
  auto rows =
      profile_operations(profile, {.read = 1e9, .float32 = 1e9, .bfloat16 = 2e9, .int8 = 2e9});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].name, "slow");
  EXPECT_EQ(rows[0].calls, 2);
  EXPECT_EQ(rows[0].duration, 8000);
  EXPECT_EQ(rows[0].bytes, 1100);
  EXPECT_EQ(rows[0].flops, 6100);
  EXPECT_DOUBLE_EQ(rows[0].share, (1000.0 + 3000.0) / 8000);
  EXPECT_EQ(rows[0].slowest, 6000);
  EXPECT_EQ(rows[0].slowest_call, 0);
  EXPECT_DOUBLE_EQ(rows[1].share, 250.0 / 1000);
  EXPECT_EQ(profile_operations(profile, {})[0].share, 0);
}

TEST(ProfileReportTest, SummaryIsATable) {
  std::string text = profile_summary(made_up(), {.read = 2e9, .float32 = 1e9});
  for (const char* part :
       {"recorded 10.00 us: run 9.50 us (kernels 9.00 us)", "elsewhere 0.50 us", "read 2.0 GB/s",
        "bfloat16 not known, int8 not known", "6.00 us: float32 (2, 3) -> float16 (2,)", "88.9",
        "5 further events were not recorded"})
    EXPECT_NE(text.find(part), text.npos) << part << "\n" << text;
  EXPECT_LT(text.find("slow "), text.find("fast "));
  EXPECT_NE(profile_summary({}, {}).find("recorded 0.00 us"), std::string::npos);
}

TEST(ProfileReportTest, LongOperandListsAreCut) {
  ProfileCall call{"many", {}, {{Dtype::I8, {}}}};
  for (int i = 0; i < 6; ++i) call.inputs.push_back({Dtype::F32, {i}});
  EXPECT_EQ(call_text(call, 2), "float32 (0,), float32 (1,) and 4 more -> int8 ()");
}

TEST(ProfileReportTest, TraceHasCompleteEvents) {
  TemporaryFolder folder;
  save_profile(made_up(), folder.path("trace.json"));
  Json trace = Json::load(folder.path("trace.json"));
  std::vector<Json> complete, names;
  for (const Json& event : trace.at("traceEvents").elements())
    (event.get<std::string>("ph") == "X" ? complete : names).push_back(event);
  ASSERT_EQ(complete.size(), 4u);
  EXPECT_EQ(names.size(), 1u + 2u);
  const Json& slow = complete[1];
  EXPECT_EQ(slow.get<std::string>("name"), "slow");
  EXPECT_EQ(slow.get<std::string>("cat"), "kernel");
  EXPECT_EQ(slow.get<double>("ts"), 1);
  EXPECT_EQ(slow.get<double>("dur"), 2);
  EXPECT_EQ(slow.get<int>("tid"), 1);
  EXPECT_EQ(slow.at("args").at("inputs").dump(), R"x(["float32 (2, 3)"])x");
  EXPECT_EQ(slow.at("args").get<double>("bytes"), 1000);
  EXPECT_EQ(slow.at("args").get<double>("flops"), 100);
  EXPECT_EQ(complete[0].at("args").get<double>("int8_operations"), 500);
  EXPECT_EQ(complete[3].get<std::string>("name"), "run");
  EXPECT_EQ(complete[3].get<std::string>("cat"), "phase");
  EXPECT_EQ(complete[3].get<int>("tid"), 2);
  EXPECT_EQ(trace.at("otherData").get<int>("dropped_events"), 5);
}

TEST(ProfileReportTest, CeilingsAreThere) {
  const Ceilings& ceilings = measured_ceilings();
  EXPECT_GT(ceilings.read, 1e8);
  EXPECT_GT(ceilings.float32, 1e8);
  EXPECT_GT(ceilings.bfloat16, 1e8);
  EXPECT_GT(ceilings.int8, 1e8);
  EXPECT_EQ(&ceilings, &measured_ceilings());
}

}  // namespace
}  // namespace mica
