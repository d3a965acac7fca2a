#include "io/safetensors_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>

#include "base/file.h"
#include "base/json.h"
#include "core/dtype.h"
#include "io/checkpoint.h"
#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"

namespace mica::io {
namespace {

std::vector<std::byte> counting(size_t bytes, int first) {
  std::vector<std::byte> values(bytes);
  for (size_t i = 0; i < bytes; ++i)
    values[i] = static_cast<std::byte>(first + static_cast<int>(i));
  return values;
}

const std::vector<TensorSpec> kSpecs = {{"b.weight", "U32", {2, 3}},
                                        {"b.scales", "F16", {3}},
                                        {"a", "F32", {4}},
                                        {"none", "F32", {0, 2}},
                                        {"z", "U8", {7}}};

const std::map<std::string, std::vector<std::byte>> kContents = {{"b.weight", counting(24, 1)},
                                                                 {"b.scales", counting(6, 50)},
                                                                 {"a", counting(16, 90)},
                                                                 {"none", {}},
                                                                 {"z", counting(7, 200)}};

// All tensors in turns, three bytes of each.
void fill(SafetensorsWriter& writer) {
  bool more = true;
  for (size_t at = 0; more; at += 3) {
    more = false;
    for (const auto& [name, bytes] : kContents) {
      if (at >= bytes.size()) continue;
      writer.write(name, std::span(bytes).subspan(at, std::min<size_t>(3, bytes.size() - at)));
      more = true;
    }
  }
}

void expect_contents(const std::string& folder) {
  Checkpoint checkpoint(folder);
  EXPECT_EQ(checkpoint.tensors().size(), kSpecs.size());
  for (const TensorSpec& spec : kSpecs) {
    const TensorEntry* entry = checkpoint.find(spec.name);
    ASSERT_NE(entry, nullptr) << spec.name;
    EXPECT_TRUE(entry->aligned) << spec.name;
    EXPECT_EQ(entry->dtype, spec.dtype);
    EXPECT_EQ(entry->shape, spec.shape);
    auto bytes = checkpoint.array(spec.name).host_bytes();
    const auto& expected = kContents.at(spec.name);
    ASSERT_EQ(entry->end - entry->begin, expected.size());
    EXPECT_TRUE(expected.empty() || !std::memcmp(bytes.get(), expected.data(), expected.size()))
        << spec.name;
  }
}

TEST(SafetensorsWriterTest, FillsOneFileInTurns) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder.path(), kSpecs);
  fill(writer);
  writer.commit();
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"model.safetensors"});
  expect_contents(folder.path());
  std::string file = read_file(folder.path("model.safetensors"), 10000);
  EXPECT_EQ(file.size(), writer.files()[0].bytes);
  EXPECT_EQ(parse_safetensors(std::as_bytes(std::span(file)), "f").metadata,
            (SafetensorsMetadata{{"format", "mlx"}}));
}

TEST(SafetensorsWriterTest, DealsOutFilesWithAnIndex) {
  TemporaryFolder folder;
  SafetensorsOptions options{.shard_bytes = 24, .parameters = 99};
  auto plan = plan_safetensors(kSpecs, options);
  ASSERT_EQ(plan.size(), 3u);  // 24; 6 + 16 + 0; 7
  EXPECT_EQ(plan[1].tensors, (std::vector<size_t>{2, 3, 1}));
  SafetensorsWriter writer(folder.path(), kSpecs, options);
  fill(writer);
  writer.commit();
  EXPECT_EQ(names_in(folder.path()),
            (std::vector<std::string>{
                "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                "model-00003-of-00003.safetensors", "model.safetensors.index.json"}));
  for (const auto& file : plan)
    EXPECT_EQ(std::filesystem::file_size(folder.path(file.name)), file.bytes) << file.name;
  expect_contents(folder.path());
  Json index = Json::load(folder.path("model.safetensors.index.json"));
  EXPECT_EQ(index.at("metadata").get<int64_t>("total_size"), 24 + 6 + 16 + 7);
  EXPECT_EQ(index.at("metadata").get<int64_t>("total_parameters"), 99);
  EXPECT_EQ(index.at("weight_map").get<std::string>("a"), "model-00002-of-00003.safetensors");
}

TEST(SafetensorsWriterTest, ATensorLargerThanAFileHasItsOwn) {
  auto plan = plan_safetensors({{"a", "U8", {2}}, {"b", "U8", {50}}, {"c", "U8", {2}}},
                               {.shard_bytes = 10});
  ASSERT_EQ(plan.size(), 3u);
  EXPECT_EQ(plan[1].tensors, std::vector<size_t>{1});
}

TEST(SafetensorsWriterTest, LeavesNothingWithoutCommit) {
  TemporaryFolder folder;
  {
    SafetensorsWriter writer(folder.path(), kSpecs, {.shard_bytes = 24});
    fill(writer);
    EXPECT_FALSE(std::filesystem::exists(folder.path("model-00001-of-00003.safetensors")));
    EXPECT_EQ(names_in(folder.path()).size(), 3u);  // temporary ones
  }
  EXPECT_TRUE(names_in(folder.path()).empty());
  SafetensorsWriter writer(folder.path(), kSpecs);
  writer.write("b.weight", counting(20, 0));
  expect_error(ErrorKind::Value, "'b.weight' is not complete: 4 of its 24 bytes are missing",
               [&] { writer.commit(); });
  expect_error(ErrorKind::Value, "5 more bytes of tensor 'b.weight', which lacks 4",
               [&] { writer.write("b.weight", counting(5, 0)); });
  expect_error(ErrorKind::Value, "'c': it was not declared", [&] { writer.write("c", {}); });
}

TEST(SafetensorsWriterTest, TakesBackFilesIfTheIndexFails) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder.path(), kSpecs, {.shard_bytes = 24});
  fill(writer);
  folder.write("model.safetensors.index.json/in/the/way", "");
  expect_error(ErrorKind::Io, "model.safetensors.index.json", [&] { writer.commit(); });
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"model.safetensors.index.json"});
}

TEST(SafetensorsWriterTest, RefusesFoldersThatHoldAModel) {
  TemporaryFolder folder;
  auto refused = [&](std::string_view part) {
    expect_error(ErrorKind::Io, part, [&] { SafetensorsWriter(folder.path(), kSpecs); });
  };
  expect_error(ErrorKind::Io, "no such folder",
               [&] { SafetensorsWriter(folder.path("none"), kSpecs); });
  folder.write("model-00001-of-00002.safetensors", "");
  refused("already holds a model: model-00001-of-00002.safetensors");
  std::filesystem::remove(folder.path("model-00001-of-00002.safetensors"));
  folder.write("model.safetensors.index.json", "");
  refused("already holds a model: model.safetensors.index.json");
}

TEST(SafetensorsWriterTest, RefusesWhatTheFormatCannotSay) {
  TemporaryFolder folder;
  auto refused = [&](std::string_view part, std::vector<TensorSpec> specs) {
    expect_error(ErrorKind::Value, part, [&] { SafetensorsWriter(folder.path(), specs); });
  };
  refused("lacks: q4", {{"a", "q4", {2}}});
  refused("no possible shape: (-1)", {{"a", "F32", {-1}}});
  refused("no possible shape", {{"a", "F32", {int64_t{1} << 62, 4}}});
  refused("occurs twice", {{"a", "F32", {2}}, {"a", "U8", {2}}});
}

TEST(SafetensorsWriterTest, NamesTheTypesOfArrays) {
  for (int i = 0; i < kDtypeCount; ++i) {
    auto dtype = static_cast<Dtype>(i);
    EXPECT_EQ(dtype_of_safetensors(safetensors_dtype(dtype), ""), dtype);
  }
}

TEST(SafetensorsWriterTest, AFullDiskShowsBeforeTheWork) {
  TemporaryFolder folder;
  signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  rlimit small{1 << 16, old.rlim_max};
  SafetensorsWriter writer(folder.path(), {{"a", "U8", {1 << 20}}});
  setrlimit(RLIMIT_FSIZE, &small);
  expect_error(ErrorKind::Io, "cannot write", [&] { writer.write("a", counting(1, 0)); });
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_FALSE(std::filesystem::exists(folder.path("model.safetensors")));
}

}  // namespace
}  // namespace mica::io
