#include "models/registry.h"

#include "base/strings.h"

// One row per architecture; its page defines `make_<model_type>`.
#define MICA_MODELS(ROW) \
  ROW(gemma2)            \
  ROW(gpt2)              \
  ROW(llama)             \
  ROW(mistral)           \
  ROW(mixtral)           \
  ROW(phi)               \
  ROW(phi3)              \
  ROW(qwen2)             \
  ROW(qwen3)             \
  ROW(stablelm)          \
  ROW(starcoder2)

namespace mica::models {

#define MICA_DECLARE(name) std::unique_ptr<Model> make_##name(const Json& config);
MICA_MODELS(MICA_DECLARE)

namespace {
struct Row {
  const char* model_type;
  std::unique_ptr<Model> (*make)(const Json& config);
};
#define MICA_ROW(name) {#name, make_##name},
constexpr Row kRows[] = {MICA_MODELS(MICA_ROW)};
}  // namespace

std::unique_ptr<Model> make_model(const Json& config) {
  auto type = config.get<std::string>("model_type");
  for (const Row& row : kRows) {
    if (type != row.model_type) continue;
    try {
      return row.make(config);
    } catch (const Error& error) {
      // What does not fit together names no key, hence not the file.
      if (std::string_view(error.what()).starts_with(config.where())) throw;
      throw Error(error.kind(), fmt::format("{}: {}", config.where(), error.what()));
    }
  }
  config.fail_at("model_type", "'{}' is not supported; known: {}", excerpt(type),
                 join(known_model_types(), ", "));
}

std::vector<std::string> known_model_types() {
  std::vector<std::string> types;
  for (const Row& row : kRows) types.push_back(row.model_type);
  return types;
}

}  // namespace mica::models
