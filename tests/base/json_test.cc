#include "base/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/json_writer.h"
#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"

namespace mica {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void expect_value_error(std::string_view part, std::string_view text) {
  expect_error(ErrorKind::Value, part, [&] { Json::parse(text, "config.json"); });
}

TEST(JsonTest, ReadsEveryType) {
  const Json json =
      Json::parse(R"({"b": true, "i": -7, "f": 2.5, "s": "é\n\ud83d\ude00", "a": [1, 2, 3],
                                    "o": {"x": null}, "big": 18446744073709551615})");
  EXPECT_TRUE(json.get<bool>("b"));
  EXPECT_EQ(json.get<int>("i"), -7);
  EXPECT_EQ(json.get<float>("f"), 2.5f);
  EXPECT_EQ(json.get<double>("i"), -7.0);
  EXPECT_EQ(json.get<std::string>("s"), "é\n😀");
  EXPECT_EQ(json.get<std::vector<int64_t>>("a"), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(json.get<uint64_t>("big"), std::numeric_limits<uint64_t>::max());
  EXPECT_TRUE(json.at("o").at("x").is_null());
  EXPECT_EQ(json.at("a").at(2).as<uint8_t>(), 3);
  EXPECT_EQ(json.size(), 7u);
}

TEST(JsonTest, NullCountsAsAbsent) {
  const Json json = Json::parse(R"({"n": null, "v": 3})");
  EXPECT_FALSE(json.has("n"));
  EXPECT_FALSE(json.has("none"));
  EXPECT_TRUE(json.has("v"));
  EXPECT_EQ(json.get<int>("n", 5), 5);
  EXPECT_EQ(json.get<int>("none", 5), 5);
  EXPECT_EQ(json.get<int>("v", 5), 3);
  EXPECT_EQ(json.get<std::string>("n", "default"), "default");
  EXPECT_FALSE(json.find("n"));
  EXPECT_EQ(json.find("v")->as<int>(), 3);
}

TEST(JsonTest, ComplaintsNameFileAndKey) {
  const Json json = Json::parse(R"({"hidden_size": "big", "layers": [{"rope": {"factor": "8x"}}],
                                    "n": null, "control": "\u001b[2J"})",
                                "config.json");
  const auto expect = [](std::string_view part, auto&& statement) {
    expect_error(ErrorKind::Value, part, statement);
  };
  expect("config.json: 'hidden_size' must be an integer, not a string (\"big\")",
         [&] { json.get<int64_t>("hidden_size"); });
  expect("config.json: 'layers[0].rope.factor' must be a number, not a string (\"8x\")",
         [&] { json.at("layers").at(0).at("rope").get<float>("factor"); });
  expect("config.json: 'layers[0].rope.type' is missing",
         [&] { json.at("layers").at(0).at("rope").at("type"); });
  expect("config.json: 'layers' has 1 elements, no element 1", [&] { json.at("layers").at(1); });
  expect("config.json: 'n' must be true or false, not null", [&] { json.get<bool>("n"); });
  expect("config.json: 'layers' must be a string, not an array",
         [&] { json.get<std::string>("layers", ""); });
  expect("config.json: 'layers' must be an object, not an array",
         [&] { json.at("layers").at("x"); });
  expect("config.json: must be an array, not an object", [&] { json.elements(); });
  expect("config.json: 'control' must be an integer, not a string (\"\\x1b[2J\")",
         [&] { json.get<int>("control"); });
  expect("config.json: 'layers[0]' is odd, see 3",
         [&] { json.at("layers").at(0).fail("is odd, see {}", 3); });
  expect("config.json: 'layers[0].x' is odd",
         [&] { json.at("layers").at(0).fail_at("x", "is odd"); });
  expect("config.json: is odd", [&] { json.fail("is odd"); });
  EXPECT_EQ(json.at("layers").at(0).where(), "config.json: 'layers[0]'");
  EXPECT_EQ(json.where(), "config.json");
}

TEST(JsonTest, IntegersAreNeverBent) {
  const Json json = Json::parse(
      R"({"whole": 4.0, "exp": 1e3, "frac": 2.5, "big": 3000000000, "neg": -1, "max": 9223372036854775807,
          "over": 9223372036854775808, "huge": 1e30, "min": -9223372036854775808})",
      "c");
  EXPECT_EQ(json.get<int>("whole"), 4);
  EXPECT_EQ(json.get<uint16_t>("exp"), 1000);
  EXPECT_EQ(json.get<int64_t>("max"), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(json.get<int64_t>("min"), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(json.get<uint64_t>("over"), 9223372036854775808u);
  const auto expect = [](std::string_view part, auto&& statement) {
    expect_error(ErrorKind::Value, part, statement);
  };
  expect("c: 'frac' must be an integer, not 2.5", [&] { json.get<int>("frac"); });
  expect("c: 'frac' must be an integer, not 2.5", [&] { json.get<unsigned>("frac"); });
  expect("'big' must be an integer from -2147483648 to 2147483647, not 3000000000",
         [&] { json.get<int>("big"); });
  expect("'neg' must be an integer from 0 to 4294967295, not -1",
         [&] { json.get<uint32_t>("neg"); });
  expect("'over' must be an integer from -92", [&] { json.get<int64_t>("over"); });
  expect("'huge' must be an integer from 0", [&] { json.get<uint64_t>("huge"); });
  expect("'huge' must be an integer from -92", [&] { json.get<int64_t>("huge"); });
}

TEST(JsonTest, FloatsMustFit) {
  const Json json = Json::parse(R"({"big": 1e300, "fine": 3e38})");
  EXPECT_EQ(json.get<float>("fine"), 3e38f);
  EXPECT_EQ(json.get<double>("big"), 1e300);
  expect_error(ErrorKind::Value, "'big' must be a number of at most",
               [&] { json.get<float>("big"); });
}

TEST(JsonTest, UnderstandsPythonsConstants) {
  const Json json = Json::parse(
      R"({"NaN": NaN, "s": "say \"NaN\" or Infinity", "a": [0.0, Infinity, -Infinity, "Infinity"]})");
  EXPECT_TRUE(std::isnan(json.get<double>("NaN")));
  EXPECT_EQ(json.get<std::string>("s"), "say \"NaN\" or Infinity");
  EXPECT_EQ(json.at("a").at(1).as<float>(), kInfinity);
  EXPECT_EQ(json.at("a").at(2).as<double>(), -kInfinity);
  EXPECT_EQ(json.at("a").at(3).as<std::string>(), "Infinity");
  expect_error(ErrorKind::Value, "must be an integer", [&] { json.get<int64_t>("NaN"); });
  expect_error(ErrorKind::Value, "must be an integer", [&] { json.at("a").at(1).as<uint64_t>(); });
  expect_value_error("a key must be a string", "{NaN: 1}");
  expect_value_error("column 12", "[NaN, NaN, oops]");
  expect_value_error("line 1", "[NaNa]");
}

TEST(JsonTest, TheLastOfEqualKeysWins) {
  const Json json = Json::parse(R"({"a": {"x": [1, 2]}, "b": 2, "a": 3})");
  EXPECT_EQ(json.size(), 2u);
  EXPECT_EQ(json.get<int>("a"), 3);
  EXPECT_EQ(json.members()[0].first, "a");
}

TEST(JsonTest, ObjectsWithManyMembersFindAndKeepOrder) {
  std::string text = "{";
  for (int i = 0; i < 1000; ++i) text += fmt::format("\"key{}\": {}, ", i, i);
  text += "\"key7\": -7}";
  const Json json = Json::parse(text);
  EXPECT_EQ(json.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(json.get<int>(fmt::format("key{}", i)), i == 7 ? -7 : i);
  EXPECT_FALSE(json.has("key1000"));
  int next = 0;
  for (const auto& [key, value] : json.members()) EXPECT_EQ(key, fmt::format("key{}", next++));
}

TEST(JsonTest, MalformedTextTellsWhere) {
  expect_value_error("config.json: line 2, column 8:", "{\n  \"a\": ?}");
  expect_value_error("config.json: line 1, column 1:", "");
  expect_value_error("line 1, column 4", "[1 2]");
  expect_value_error("line 1", "{\"a\": 1} trailing");
  expect_value_error("line 1", "[1,]");
  expect_value_error("line 1", "{\"a\" 1}");
  expect_value_error("line 1", "\"\xff\"");
  expect_value_error("line 1", "\"\\ud800\"");
  expect_value_error("line 1", "[1e999]");
  expect_value_error("line 1", std::string_view("[1]\0", 4));
  expect_value_error("line 1", "[\"\x01\"]");
}

TEST(JsonTest, LimitsDepthAndSize) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_EQ(Json::parse(nested(128)).size(), 1u);
  expect_value_error("nested deeper than 128 levels", nested(129));
  expect_value_error("nested deeper than 128 levels", std::string(10'000'000, '['));
  expect_error(ErrorKind::Value, "larger than the 4 B",
               [] { Json::parse("[1, 2]", "x", {4, 128}); });
}

TEST(JsonTest, LoadsFiles) {
  TemporaryFolder folder;
  EXPECT_EQ(Json::load(folder.write("a.json", "\xEF\xBB\xBF{\"a\": 1}")).get<int>("a"), 1);
  const std::string broken = folder.write("b.json", "{");
  expect_error(ErrorKind::Value, broken + ": line 1", [&] { Json::load(broken); });
  expect_error(ErrorKind::Io, "No such file", [&] { Json::load(folder.path("none.json")); });
  expect_error(ErrorKind::Io, "larger than the 2 B",
               [&] { Json::load(folder.write("c.json", "[1]"), {2, 128}); });
}

TEST(JsonTest, BuildsAndDumps) {
  Json json = Json::object();
  json.set("i", 1).set("n", nullptr).set("b", false).set("f", 0.1).set("one", 1.0f);
  json.set("s", "a\"\\\n\x01é").set("u", std::numeric_limits<uint64_t>::max());
  json.set("ids", std::vector<int>{1, 2}).set("o", Json::object().set("x", Json::array().push(-5)));
  json.set("bad", kInfinity).set("i", -2);
  EXPECT_EQ(
      json.dump(),
      R"({"i":-2,"n":null,"b":false,"f":0.1,"one":1.0,"s":"a\"\\\n\u0001é","u":18446744073709551615,)"
      R"("ids":[1,2],"o":{"x":[-5]},"bad":null})");
  EXPECT_EQ(Json().dump(), "null");
  EXPECT_EQ(Json("x").dump(), "\"x\"");
  EXPECT_EQ(Json::parse(R"({"a":[1,{}],"b":[]})").dump(2),
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
}

TEST(JsonTest, CopiesAreIndependent) {
  Json first = Json::parse(R"({"a": {"x": 1}})");
  Json second = first;
  second.set("b", 2);
  Json inner = second.at("a");
  inner.set("x", 9);
  EXPECT_EQ(first.dump(), R"({"a":{"x":1}})");
  EXPECT_EQ(second.dump(), R"({"a":{"x":1},"b":2})");
  EXPECT_EQ(inner.dump(), R"({"x":9})");
  first.set("self", first);
  EXPECT_EQ(first.dump(), R"({"a":{"x":1},"self":{"a":{"x":1}}})");
  const Json moved = std::move(second);
  EXPECT_TRUE(second.is_null());
  Json null;
  null.push(1).push("two");
  EXPECT_EQ(null.dump(), R"([1,"two"])");
  expect_error(ErrorKind::Value, "must be an object, not an array", [&] { null.set("x", 1); });
}

TEST(JsonTest, ValuesOutliveTheirDocument) {
  const auto inner = [] {
    return Json::parse(R"({"a": {"b": ["text"]}})").at("a").at("b").at(0);
  }();
  EXPECT_EQ(inner.as<std::string>(), "text");
  for (const auto& [key, value] : Json::parse(R"({"a": 1})").members()) {
    EXPECT_EQ(key, "a");
    EXPECT_EQ(value.as<int>(), 1);
  }
}

TEST(JsonTest, NumbersSurviveARoundTrip) {
  for (const double number :
       {0.1, 1e22, 5e-324, 1.7976931348623157e308, -0.0, 123456789.0, 1.0 / 3, 1e-7}) {
    const double back = Json::parse(Json(number).dump()).as<double>();
    EXPECT_EQ(back, number);
    EXPECT_EQ(std::signbit(back), std::signbit(number));
  }
  EXPECT_EQ(Json(123456789.0).dump(), "123456789.0");
}

TEST(JsonWriterTest, WritesPieceByPiece) {
  JsonWriter json;
  json.begin_object().key("a").begin_array().value(1).value(0.1f).value(-0.5).null().value(true);
  json.begin_object().end_object().end_array().key("s").value("x").end_object();
  EXPECT_EQ(json.text(), R"({"a":[1,0.1,-0.5,null,true,{}],"s":"x"})");
  EXPECT_EQ(JsonWriter().value(std::numeric_limits<double>::quiet_NaN()).text(), "null");
  EXPECT_EQ(JsonWriter().value("\xff\xc3(\xe2\x82").text(), "\"\uFFFD\uFFFD(\uFFFD\"");
  EXPECT_EQ(JsonWriter().value(std::vector<float>{1, 2.5f}).text(), "[1.0,2.5]");
}

TEST(JsonWriterTest, StreamsInParts) {
  JsonWriter json;
  std::string all;
  json.begin_array();
  for (int i = 0; i < 3; ++i) {
    json.value(i);
    all += json.take();
  }
  json.end_array();
  EXPECT_EQ(all + json.take(), "[0,1,2]");
}

}  // namespace
}  // namespace mica
