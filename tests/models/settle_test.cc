// Weights that move to huge pages: what a model computes stays the same, to the bit.
#include "models/settle.h"

#include <gtest/gtest.h>

#include "base/memory_info.h"
#include "models/load.h"
#include "ops/elementwise.h"

namespace mica::models {
namespace {

std::vector<float> logits_of(Model& model) {
  nn::SequenceCache cache = model.make_cache(true);
  nn::Batch batch({&cache}, 3);
  Array ids = Array::from<int32_t>({1, 2, 3}, {1, 3});
  return astype(model.forward(ids, batch, LogitsAt::All), Dtype::F32).to_vector<float>();
}

TEST(Settler, MovesWeightsAfterSomePassesAndChangesNothing) {
  const LoadedModel loaded = load_model(MICA_ASSETS "/shakespeare-3m");
  const std::vector<float> before = logits_of(*loaded.model);
  Settler settler(*loaded.model);
  settler.after_pass();
  EXPECT_EQ(settler.moved_bytes(), 0) << "a short answer must not pay for the copy";
  EXPECT_FALSE(settler.finished());
  for (int pass = 0; pass < 20; ++pass) {
    settler.after_pass();
    EXPECT_EQ(logits_of(*loaded.model), before);
  }
  const int64_t moved = settler.moved_bytes();
  for (int pass = 0; pass < 10000; ++pass) settler.after_pass();
  EXPECT_TRUE(settler.finished());
  EXPECT_EQ(settler.moved_bytes(), moved) << "moved in the first round";
  if (settler.moved_bytes() == 0) return;  // the system has no huge pages to give
  // All but the pages that the ends of the file share.
  EXPECT_GT(settler.moved_bytes(), loaded.weight_bytes - (5 << 20));
  EXPECT_LE(settler.moved_bytes(), loaded.weight_bytes);
  EXPECT_GT(memory_usage().anonymous, static_cast<uint64_t>(settler.moved_bytes()));
}

TEST(Settler, AnotherFindsNothingLeftToMove) {
  const LoadedModel loaded = load_model(MICA_ASSETS "/shakespeare-3m");
  Settler first(*loaded.model), second(*loaded.model);
  for (int pass = 0; pass < 20; ++pass) first.after_pass();
  for (int pass = 0; pass < 10000; ++pass) second.after_pass();
  EXPECT_TRUE(second.finished());
  EXPECT_EQ(second.moved_bytes(), 0);
}

TEST(Settler, WeightsThatAreNotInAFileStayWhereTheyAre) {
  const LoadedModel loaded = load_model(MICA_ASSETS "/shakespeare-3m");
  class Copier : public nn::Visitor {
   protected:
    void on_parameter(const std::string&, Array& array, const Shape& shape) override {
      array = Array::from<float>(astype(array, Dtype::F32).to_vector<float>(), shape);
    }
  } copier;
  copier.module("", *loaded.model);
  EXPECT_TRUE(Settler(*loaded.model).finished());
}

}  // namespace
}  // namespace mica::models
