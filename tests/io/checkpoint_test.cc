#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/counters.h"
#include "io/safetensors_writer.h"
#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"
#include "tests/misaligned.h"

namespace mica::io {
namespace {

struct Folder {
  Folder() {
    for (int i = 0; i < 24; ++i) values.push_back(static_cast<float>(i));
    write_safetensors(folder.path("model.safetensors"),
                      {{"w", "F32", {6, 4}, std::as_bytes(std::span(values))}});
  }
  TemporaryFolder folder;
  std::vector<float> values;
};

TEST(CheckpointTest, PartsShareTheFile) {
  Folder in;
  Checkpoint checkpoint(in.folder.path());
  EXPECT_EQ(checkpoint.dtype("w"), Dtype::F32);
  reset_counters();
  Array part = checkpoint.part("w", 8, {3, 4});
  EXPECT_EQ(part.to_vector<float>(),
            std::vector<float>(in.values.begin() + 8, in.values.begin() + 20));
  EXPECT_EQ(checkpoint.array("w").to_vector<float>(), in.values);
  EXPECT_EQ(checkpoint.part("w", 24, {0}).size(), 0);
  EXPECT_EQ(counters().bytes_copied, 0);
  expect_error(ErrorKind::Value, "no tensor 'v'", [&] { checkpoint.part("v", 0, {1}); });
}

TEST(CheckpointTest, OnlyPartsOfMisalignedTensorsAreCopied) {
  Folder in;
  testing::misalign(in.folder.path("model.safetensors"));
  Checkpoint checkpoint(in.folder.path());
  EXPECT_FALSE(checkpoint.find("w")->aligned);
  reset_counters();
  Array part = checkpoint.part("w", 8, {3, 4});
  EXPECT_EQ(counters().bytes_copied, 3 * 4 * 4);
  EXPECT_EQ(part.to_vector<float>(),
            std::vector<float>(in.values.begin() + 8, in.values.begin() + 20));
}

TEST(CheckpointTest, LettingGoNoticesChanges) {
  Folder in;
  Checkpoint checkpoint(in.folder.path());
  checkpoint.let_go("w", 4, 12);
  EXPECT_EQ(checkpoint.array("w").to_vector<float>(), in.values);
  std::ofstream(in.folder.path("model.safetensors"), std::ios::app) << "more";
  expect_error(ErrorKind::Io, "was changed", [&] { checkpoint.let_go("w", 0, 4); });
}

}  // namespace
}  // namespace mica::io
