// What nodes promise across threads: ids that grow along edges, counts that are exact, outputs that
// live as long as someone holds them.
#include "core/node.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "core/counters.h"
#include "ops/elementwise.h"

namespace mica {
namespace {

Array numbers() { return Array::from<float>({3, 1, 2}, {3}); }

TEST(Node, IdsGrowAlongEdgesBetweenThreads) {
  Array y = numbers();
  std::set<uint64_t> ids{y.node()->id};
  Arrays kept{y};
  auto extend = [&] {
    Array next = -y;
    EXPECT_GT(next.node()->id, y.node()->id);
    EXPECT_TRUE(ids.insert(next.node()->id).second) << "an id twice";
    y = next;
    kept.push_back(y);
  };
  for (int turn = 0; turn < 4; ++turn) {
    for (int i = 0; i < 3; ++i) extend();
    std::thread([&] {
      for (int i = 0; i < 3; ++i) extend();
    }).join();
  }
}

TEST(Node, CountsTakeInThreadsThatHaveEnded) {
  int64_t live = live_nodes();
  reset_counters();
  Array here = numbers();
  Array there;
  std::thread([&] { there = -(-here); }).join();
  EXPECT_EQ(counters().nodes, 2);
  EXPECT_EQ(live_nodes(), live + 3);
  there = Array();  // this thread releases what the other one built
  EXPECT_EQ(live_nodes(), live + 1);
  reset_counters();
  EXPECT_EQ(counters().nodes, 0);
}

TEST(Node, CountsTakeInThreadsThatRun) {
  Array x = numbers();
  reset_counters();
  std::atomic<bool> built{false}, seen{false};
  std::thread other([&] {
    Array y = -x;
    built = true;
    while (!seen) std::this_thread::yield();
  });
  while (!built) std::this_thread::yield();
  EXPECT_EQ(counters().nodes, 1);
  seen = true;
  other.join();
}

// Handles of one output that come and go on several threads: the last one releases the node, once.
TEST(Node, HandlesOnSeveralThreads) {
  int64_t live = live_nodes();
  for (int turn = 0; turn < 200; ++turn) {
    Array x = numbers();
    auto work = [x] {
      Array copy = x, again = copy;
      copy = Array();
      EXPECT_EQ(again.shape(0), 3);
    };
    std::thread one(work), two(work);
    x = Array();
    one.join();
    two.join();
  }
  EXPECT_EQ(live_nodes(), live);
}

TEST(Node, InputsGivenInBracesMoveIntoTheNode) {
  Array x = numbers();
  Array y = -(-x);
  EXPECT_EQ(x.slot()->refs.load(), 2u);                    // this handle and the node's
  EXPECT_EQ(y.node()->inputs[0].slot()->refs.load(), 1u);  // the node's alone
  EXPECT_EQ(y.node()->inputs[0].node()->inputs[0].id(), x.id());
}

}  // namespace
}  // namespace mica
