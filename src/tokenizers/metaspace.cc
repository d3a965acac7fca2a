#include "tokenizers/metaspace.h"

#include "tokenizers/unicode.h"

namespace mica::tokenizers {

std::string one_character(const Json& settings, const char* key) {
  auto text = settings.get<std::string>(key);
  if (text.empty() || text.size() != char_length(text[0])) {
    settings.fail_at(key, "must be one character");
  }
  return text;
}

Metaspace::Metaspace(const Json& settings)
    : replacement(one_character(settings, "replacement")),
      split(settings.get<bool>("split", true)) {
  const auto scheme = settings.get<std::string>("prepend_scheme", "always");
  if (scheme == "always") {
    prepend = Prepend::Always;
  } else if (scheme == "first") {
    prepend = Prepend::First;
  } else if (scheme == "never") {
    prepend = Prepend::Never;
  } else {
    settings.fail_at("prepend_scheme", "must be always, first or never, not \"{}\"", scheme);
  }
  // Older files have this alone, newer ones may have both.
  if (!settings.get<bool>("add_prefix_space", true)) {
    if (settings.has("prepend_scheme") && prepend != Prepend::Never) {
      settings.fail_at("add_prefix_space", "does not agree with prepend_scheme \"{}\"", scheme);
    }
    prepend = Prepend::Never;
  }
}

}  // namespace mica::tokenizers
