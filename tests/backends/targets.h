// Runs a test once per instruction set that this build and processor have:
//
//   class GemmTest : public TargetTest {};
//   TEST_P(GemmTest, Sizes) { … }
//   INSTANTIATE_TEST_SUITE_P(Targets, GemmTest, all_targets(), target_name);
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <vector>

namespace mica::cpu {

class TargetTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

inline auto all_targets() {
  std::vector<int64_t> targets;
  int64_t all = hwy::SupportedTargets();
  for (int64_t bit = 1; bit > 0 && bit <= HWY_STATIC_TARGET; bit <<= 1)
    if (all & HWY_TARGETS & bit) targets.push_back(bit);
  return ::testing::ValuesIn(targets);
}
inline auto target_name = [](const auto& info) { return hwy::TargetName(info.param); };

}  // namespace mica::cpu
