// What tests of recordings share.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/profile_report.h"

namespace mica::testing {

inline Array counting(const Shape& shape) {
  std::vector<float> values(static_cast<size_t>(elements(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7) * 0.1f;
  return Array::from<float>(values, shape);
}

template <class F>
Profile profile_of(F&& f) {
  start_profile();
  f();
  return stop_profile();
}

inline std::vector<ProfileEvent> calls_in(const Profile& profile) {
  std::vector<ProfileEvent> calls;
  for (const ProfileEvent& event : profile.events) {
    if (event.call >= 0) calls.push_back(event);
  }
  return calls;
}

// The only call that evaluating the arrays makes.
inline ProfileEvent call_of(const Array& array, std::string* text = nullptr) {
  Profile profile = profile_of([&] { array.eval(); });
  auto calls = calls_in(profile);
  EXPECT_EQ(calls.size(), 1u);
  if (calls.empty()) return {};
  const ProfileCall& call = profile.calls[static_cast<size_t>(calls[0].call)];
  if (text) *text = call.name + ": " + call_text(call);
  return calls[0];
}

}  // namespace mica::testing
