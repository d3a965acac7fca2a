// What is kept of memory that is no longer in use.
#include <gtest/gtest.h>

#include "core/buffer.h"
#include "core/counters.h"

namespace mica {
namespace {

constexpr size_t kLarge = size_t{700} << 20;  // never touched, hence only addresses

int64_t cached() { return memory_use(DeviceKind::Cpu).cached; }

void use_and_drop_two() {
  auto first = Buffer::create(kLarge, {}), second = Buffer::create(kLarge, {});
}

TEST(Memory, AsMuchIsKeptAsWasInUseUntilALimitIsSet) {
  clear_cache();
  EXPECT_EQ(cached(), 0);
  Buffer::create(1 << 20, {}).reset();
  const bool keeps = cached() > 0;  // nothing is kept under the address sanitizer
  use_and_drop_two();
  if (keeps) {
    EXPECT_GE(cached(), int64_t{2} * kLarge);
  } else {
    EXPECT_EQ(cached(), 0);
  }
  const int64_t previous = set_cache_limit(1 << 20);
  EXPECT_LE(cached(), 1 << 20);
  use_and_drop_two();
  EXPECT_LE(cached(), 1 << 20);
  EXPECT_EQ(set_cache_limit(previous), 1 << 20);
}

}  // namespace
}  // namespace mica
