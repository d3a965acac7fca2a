// Json: parsing either complains with mica::Error or gives a value whose dump parses to the same
// dump, and whose accessors complain with mica::Error only.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "base/json.h"

namespace {

using mica::Json;

template <class F>
void attempt(F&& statement) {
  try {
    statement();
  } catch (const mica::Error&) {
  }
}

void visit(const Json& json) {
  attempt([&] { json.as<int8_t>(); });
  attempt([&] { json.as<uint64_t>(); });
  attempt([&] { json.as<float>(); });
  attempt([&] { json.as<std::string>(); });
  attempt([&] { json.as<std::vector<int64_t>>(); });
  if (json.is_array()) {
    for (const Json& element : json.elements()) visit(element);
  } else if (json.is_object()) {
    for (const auto& [key, value] : json.members()) {
      if (json.at(key).type() != value.type()) std::abort();
      visit(value);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Complaints search the tree, so that many of them take quadratic time.
  if (size > 4096) return 0;
  attempt([&] {
    const Json json = Json::parse({reinterpret_cast<const char*>(data), size}, "fuzz.json");
    const std::string text = json.dump();
    if (Json::parse(text).dump() != text || Json::parse(json.dump(2)).dump() != text) std::abort();
    visit(json);
    Json copy = json;
    attempt([&] { copy.set("a", json); });
    attempt([&] { copy.push(json); });
    if (json.dump() != text) std::abort();
  });
  return 0;
}
