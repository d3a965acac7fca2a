#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/file.h"
#include "base/mapped_file.h"
#include "io/safetensors_writer.h"
#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"

namespace mica::io {
namespace {

// A file with this header and so many bytes of data.
std::string file_of(std::string_view header, size_t data) {
  std::string file;
  for (size_t i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i));
  file += header;
  file.append(data, '\7');
  return file;
}

SafetensorsIndex parse(std::string_view file) {
  return parse_safetensors(std::as_bytes(std::span(file)), "m.safetensors");
}

void expect_refused(std::string_view part, std::string_view header, size_t data = 8) {
  SCOPED_TRACE(header);
  const std::string file = file_of(header, data);
  expect_error(ErrorKind::Value, "m.safetensors: ", [&] { parse(file); });
  expect_error(ErrorKind::Value, part, [&] { parse(file); });
}

std::string tensor(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"dtype":"{}","shape":[{}],"data_offsets":[{}]}})", dtype, shape, offsets);
}

TEST(SafetensorsTest, ReadsAHeader) {
  const std::string header = R"({"__metadata__":{"format":"pt","é":"x"},"w":)" +
                             tensor("BF16", "2, 3", "4, 16") + R"(,"a.scalar":)" +
                             tensor("F32", "", "0,4") + R"(,"none":)" +
                             tensor("I64", "0,5", "16,16") + "}   ";
  const SafetensorsIndex index = parse(file_of(header, 16));
  ASSERT_EQ(index.tensors.size(), 3u);
  EXPECT_EQ(index.metadata.at("format"), "pt");
  EXPECT_EQ(index.metadata.at("é"), "x");
  const TensorEntry* w = index.find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->dtype, "BF16");
  EXPECT_EQ(w->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(w->begin, 8 + header.size() + 4);
  EXPECT_EQ(w->end - w->begin, 12u);
  EXPECT_TRUE(index.find("a.scalar")->shape.empty());
  EXPECT_EQ(index.find("none")->begin, index.find("none")->end);
  EXPECT_EQ(index.find("b"), nullptr);
  EXPECT_EQ(index.tensors[0].name, "a.scalar");
}

TEST(SafetensorsTest, MetadataMayBeNull) {
  const SafetensorsIndex index =
      parse(file_of(R"({"__metadata__":null,"w":)" + tensor("F32", "1", "0,4") + "}", 4));
  EXPECT_TRUE(index.metadata.empty());
  EXPECT_NE(index.find("w"), nullptr);
}

TEST(SafetensorsTest, FlagsMisalignedTensors) {
  const std::string header = R"({"w":)" + tensor("F32", "1", "0,4") + "}";
  for (size_t padding = 0; padding < 4; ++padding) {
    const std::string padded = header + std::string(padding, ' ');
    const SafetensorsIndex index = parse(file_of(padded, 4));
    EXPECT_EQ(index.find("w")->aligned, padded.size() % 4 == 0);
  }
}

TEST(SafetensorsTest, KnowsItsDtypes) {
  EXPECT_EQ(safetensors_dtype_size("BOOL"), 1u);
  EXPECT_EQ(safetensors_dtype_size("F8_E4M3"), 1u);
  EXPECT_EQ(safetensors_dtype_size("BF16"), 2u);
  EXPECT_EQ(safetensors_dtype_size("U64"), 8u);
  EXPECT_EQ(safetensors_dtype_size("f32"), 0u);
}

TEST(SafetensorsTest, RefusesWhatIsNoSafetensorsFile) {
  const auto refused = [](std::string_view part, std::string_view file) {
    expect_error(ErrorKind::Value, part, [&] { parse(file); });
  };
  refused("m.safetensors: 0 bytes are too few", "");
  refused("7 bytes are too few", std::string(7, '\0'));
  refused("more than the 100000000 allowed", "PK\3\4 some other archive");
  refused("a Git LFS pointer",
          "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  refused("truncated: the header takes 40 bytes, the file has 10",
          std::string("\x20\0\0\0\0\0\0\0{}", 10));
  refused("does not start with '{'", std::string(8, '\0'));
}

TEST(SafetensorsTest, RefusesMalformedHeaders) {
  expect_refused("is not valid JSON", "{\"a\":");
  expect_refused("does not start with '{'", " {}", 0);
  expect_refused("does not start with '{'", "[]", 0);
  expect_refused("is not valid JSON", "{} x", 0);
  expect_refused("is not valid JSON", "{\"\xff\":1}", 0);
  expect_refused("is not valid JSON", std::string(5000, '{'), 0);
  expect_refused("8 bytes at the end belong to no tensor", "{}");
  expect_refused("__metadata__ is not an object", R"({"__metadata__":[]})", 0);
  expect_refused("__metadata__ 'a' is not a string", R"({"__metadata__":{"a":1}})", 0);
  expect_refused("__metadata__ 'a' occurs twice", R"({"__metadata__":{"a":"","a":""}})", 0);
  expect_refused("__metadata__ occurs twice", R"({"__metadata__":{},"__metadata__":{}})", 0);
}

TEST(SafetensorsTest, RefusesBadDescriptions) {
  const auto refused = [](std::string_view part, std::string_view description) {
    expect_refused(part, fmt::format(R"({{"w":{}}})", description));
  };
  refused("tensor 'w': its description is not an object", "3");
  refused("'dtype' is missing", R"({"shape":[2],"data_offsets":[0,8]})");
  refused("'shape' is missing", R"({"dtype":"F32","data_offsets":[0,8]})");
  refused("'data_offsets' is missing", R"({"dtype":"F32","shape":[2]})");
  refused("'shape' occurs twice",
          R"({"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]})");
  refused("'dtype' is not a string", R"({"dtype":3,"shape":[2],"data_offsets":[0,8]})");
  refused("unknown dtype 'F33\\x1b'", tensor("F33\\u001b", "2", "0,8"));
  refused("'shape' is not an array", R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})");
  for (const char* shape : {"-2", "2.0", "\"2\"", "null", "9223372036854775808", "[2]"}) {
    refused("'shape' holds something other than numbers", tensor("F32", shape, "0,8"));
  }
  for (const char* offsets : {"0", "0,8,9", "-1,7", "0,8.0", "\"0\",8", ""}) {
    refused("'data_offsets' is not a pair", tensor("F32", "2", offsets));
  }
}

TEST(SafetensorsTest, RefusesBadRanges) {
  const auto refused = [](std::string_view part, std::string_view description) {
    expect_refused(part, fmt::format(R"({{"w":{}}})", description));
  };
  refused("ends at 0 before it begins at 8", tensor("F32", "2", "8,0"));
  refused("shape (3) of F32 takes 12 bytes, its data_offsets span 8", tensor("F32", "3", "0,8"));
  refused("ends at byte 16 of the data, of which the file has 8", tensor("F32", "4", "0,16"));
  refused("ends at byte 18446744073709551615",
          tensor("F32", "2", "18446744073709551607,18446744073709551615"));
  refused("shape (4294967296, 4294967296) of F32 overflows",
          tensor("F32", "4294967296,4294967296", "0,8"));
  refused("overflows", tensor("F64", "9223372036854775807", "0,8"));
  refused("overflows", tensor("F32", "9223372036854775807,9223372036854775807,0", "0,0"));
  refused("4 bytes before it belong to no tensor", tensor("F32", "1", "4,8"));
  refused("4 bytes at the end belong to no tensor", tensor("F32", "1", "0,4"));
}

TEST(SafetensorsTest, RefusesOverlapHolesAndEqualNames) {
  const auto pair = [](std::string_view a, std::string_view b, std::string_view second = "b") {
    return fmt::format(R"({{"a":{},"{}":{}}})", tensor("U8", "4", a), second, tensor("U8", "4", b));
  };
  EXPECT_EQ(parse(file_of(pair("4,8", "0,4"), 8)).tensors.size(), 2u);
  expect_refused("tensor 'b': overlaps 'a'", pair("0,4", "2,6"));
  expect_refused("overlaps", pair("0,4", "0,4"), 4);
  expect_refused("tensor 'b': 1 bytes before it belong to no tensor", pair("0,4", "5,9"), 9);
  expect_refused("tensor 'a': occurs twice", pair("0,4", "4,8", "a"));
  expect_refused("tensor 'a': occurs twice", pair("0,4", "4,8", "\\u0061"));
}

TEST(SafetensorsTest, ReadsWhatItWrites) {
  TemporaryFolder folder;
  const std::string path = folder.path("out.safetensors");
  const std::vector<float> floats = {1, 2, 3, 4, 5, 6};
  const std::vector<uint8_t> bytes = {7, 8, 9};
  const std::vector<int64_t> longs = {-1};
  write_safetensors(path,
                    {{"z.bytes", "U8", {3}, std::as_bytes(std::span(bytes))},
                     {"b \"quoted\"", "F32", {2, 3}, std::as_bytes(std::span(floats))},
                     {"a", "F32", {0}, {}},
                     {"scalar", "I64", {}, std::as_bytes(std::span(longs))}},
                    {{"format", "mica"}});
  const auto file = MappedFile::open(path);
  const SafetensorsIndex index = parse_safetensors(file->bytes(), path);
  ASSERT_EQ(index.tensors.size(), 4u);
  EXPECT_EQ(index.metadata, (std::map<std::string, std::string>{{"format", "mica"}}));
  for (const TensorEntry& entry : index.tensors) EXPECT_TRUE(entry.aligned) << entry.name;
  const TensorEntry* quoted = index.find("b \"quoted\"");
  ASSERT_NE(quoted, nullptr);
  EXPECT_EQ(std::memcmp(file->bytes().data() + quoted->begin, floats.data(), 24), 0);
  EXPECT_LT(index.find("scalar")->begin, index.find("a")->begin);
  EXPECT_LT(quoted->begin, index.find("z.bytes")->begin);
  EXPECT_EQ(index.find("scalar")->begin % 8, 0u);
}

TEST(SafetensorsTest, WritesAnEmptyFile) {
  TemporaryFolder folder;
  const std::string path = folder.path("out.safetensors");
  write_safetensors(path, {});
  EXPECT_TRUE(parse(read_file(path, 1000)).tensors.empty());
}

TEST(SafetensorsTest, RefusesToWriteWhatItCouldNotRead) {
  TemporaryFolder folder;
  const std::vector<std::byte> bytes(8);
  const auto refused = [&](std::string_view part, std::vector<TensorData> tensors) {
    expect_error(ErrorKind::Value, part, [&] { write_safetensors(folder.path("out"), tensors); });
    EXPECT_FALSE(std::filesystem::exists(folder.path("out")));
  };
  refused("lacks: F31", {{"a", "F31", {2}, bytes}});
  refused("tensor 'a' of shape (3) and dtype F32 comes with 8 bytes", {{"a", "F32", {3}, bytes}});
  refused("no possible shape: (-1, -2)", {{"a", "F32", {-1, -2}, bytes}});
  refused("may not have", {{"__metadata__", "F32", {2}, bytes}});
  refused("may not have", {{"\xff", "F32", {2}, bytes}});
  refused("occurs twice",
          {{"a", "F32", {2}, bytes}, {"b", "F32", {2}, bytes}, {"a", "F32", {2}, bytes}});
  expect_error(ErrorKind::Io, "cannot write", [&] { write_safetensors(folder.path("x/y"), {}); });
}

TEST(SafetensorsTest, ReadsTheDefaultModel) {
  const std::string path = MICA_ASSETS "/shakespeare-3m/model.safetensors";
  const SafetensorsIndex index = parse_safetensors(MappedFile::open(path)->bytes(), path);
  EXPECT_FALSE(index.tensors.empty());
}

}  // namespace
}  // namespace mica::io
