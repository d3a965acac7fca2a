#include "generate/generation_config.h"

#include <filesystem>

namespace mica::generate {

namespace {

std::vector<int32_t> read_eos(const Json& json) {
  auto eos = json.find("eos_token_id");
  if (!eos) return {};
  if (eos->is_array()) return eos->as<std::vector<int32_t>>();
  return {eos->as<int32_t>()};
}

}  // namespace

GenerationConfig read_generation_config(const std::string& folder, const Json& config) {
  GenerationConfig result;
  const std::string path = folder + "/generation_config.json";
  // A link that leads nowhere is there, and an error when it is read.
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::symlink_status(path, error))) {
    const Json json = Json::load(path);
    result.eos = read_eos(json);
    if (json.get<bool>("do_sample", false)) {
      SamplingOptions& s = result.sampling;
      s.temperature = json.get<double>("temperature", 1);
      s.top_k = json.get<int64_t>("top_k", s.top_k);
      s.top_p = json.get<double>("top_p", s.top_p);
      s.min_p = json.get<double>("min_p", s.min_p);
      s.repetition_penalty = json.get<double>("repetition_penalty", s.repetition_penalty);
    }
  }
  if (result.eos.empty()) result.eos = read_eos(config);
  return result;
}

}  // namespace mica::generate
