// config.json of a model: either a mica::Error, or a model whose sizes are within bounds, whose
// memory can be estimated, and which can make its caches.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "models/load.h"
#include "models/registry.h"

namespace {

void check(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mica;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto model = models::make_model(Json::parse(text, "config.json"));
    const models::ModelInfo& info = model->info();
    check(info.vocabulary > 0 && info.layers > 0 && info.max_positions > 0);
    check(info.position_elements > 0 && info.token_elements > 0);
    check(info.windows.size() == static_cast<size_t>(info.layers));
    for (const int64_t window : info.windows) check(window >= 0);
    const auto need = models::estimate_memory(info, 0, {.context = info.max_positions});
    check(need.cache > 0 && need.workspace > 0 && need.total() > 0);
    model->make_cache(true);
  } catch (const Error&) {
  }
  return 0;
}
