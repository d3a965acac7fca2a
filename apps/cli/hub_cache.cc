#include "hub_cache.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/environment.h"
#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"

namespace mica::cli {

namespace fs = std::filesystem;

namespace {

struct Repository {
  std::string name;  // "org/name", or "name" for the oldest ones
  std::string revision = "main";
};

// The hub's rule for names: letters, digits, '-', '_' and '.', no "--" and "..", neither '-' nor
// '.' at the ends.
bool is_name(std::string_view part) {
  auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  return !part.empty() && part.size() <= 96 && letter(part.front()) && letter(part.back()) &&
         std::all_of(part.begin(), part.end(),
                     [&](char c) { return letter(c) || c == '-' || c == '.'; }) &&
         part.find("--") == part.npos && part.find("..") == part.npos;
}

// Revisions such as "refs/pr/1" become paths below refs/.
bool is_revision(std::string_view revision) {
  const auto parts = split(revision, '/');
  return std::all_of(parts.begin(), parts.end(), is_path_component);
}

std::optional<Repository> parse_repository(std::string_view text) {
  Repository repository;
  if (size_t at = text.find('@'); at != text.npos) {
    repository.revision = text.substr(at + 1);
    text = text.substr(0, at);
  }
  const auto parts = split(text, '/');
  if (parts.size() > 2 || !std::all_of(parts.begin(), parts.end(), is_name)) return std::nullopt;
  if (!is_revision(repository.revision)) return std::nullopt;
  repository.name = text;
  return repository;
}

std::string expand_home(const std::string& path) {
  if (path != "~" && !path.starts_with("~/")) return path;
  return environment_variable("HOME").value_or("") + path.substr(1);
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::string folder_name(std::string name) {
  if (size_t slash = name.find('/'); slash != name.npos) name.replace(slash, 1, "--");
  return "models--" + name;
}

[[noreturn]] void fail_absent(const Repository& repository, const fs::path& cache) {
  std::vector<std::string> known;
  for (std::string name : names_in(cache)) {
    if (!name.starts_with("models--")) continue;
    name = name.substr(8);
    if (size_t dashes = name.find("--"); dashes != name.npos) name.replace(dashes, 2, "/");
    known.push_back(std::move(name));
  }
  const auto meant = closest(repository.name, known);
  throw_io(
      "there is no folder '{0}' and no model of that name in the Hugging Face cache ({1}){2}. Mica "
      "does not download models yet: get it with `hf download {0}`, or give the folder that holds "
      "its config.json and safetensors files",
      repository.name, printable(cache.string()),
      meant ? fmt::format("; did you mean '{}'?", printable(*meant)) : "");
}

// The snapshot's folder; links inside were not looked at.
fs::path find_snapshot(const Repository& repository, const fs::path& cache) {
  const fs::path home = cache / folder_name(repository.name);
  std::error_code error;
  if (!fs::is_directory(home, error)) fail_absent(repository, cache);
  std::string commit = repository.revision;
  if (const fs::path ref = home / "refs" / repository.revision; fs::is_regular_file(ref, error))
    commit = trim(read_file(ref, 256));
  const fs::path snapshot = home / "snapshots" / commit;
  if (is_path_component(commit) && fs::is_directory(snapshot, error)) return snapshot;
  auto revisions = names_in(home / "refs");
  throw_io(
      "the Hugging Face cache ({}) holds '{}', but not its revision '{}'{}; get it with "
      "`hf download {} --revision {}`",
      printable(home.string()), repository.name, excerpt(repository.revision),
      revisions.empty() ? "" : fmt::format(" (it has {})", printable(join(revisions, ", "))),
      repository.name, excerpt(repository.revision));
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

// A link out of the cache would let a crafted snapshot name any file of this machine.
void check_links(const fs::path& snapshot, const fs::path& cache) {
  const fs::path inside = fs::canonical(cache);
  auto check = [&](const fs::path& path) {
    std::error_code error;
    const fs::path target = fs::weakly_canonical(path, error);
    if (error || !is_inside(target, inside))
      throw_io("{} leads out of the Hugging Face cache to {}: refused", printable(path.string()),
               printable(target.string()));
    if (fs::is_symlink(path) && !fs::exists(path, error))
      throw_io("{} has no content: its download was not finished; run `hf download` again",
               printable(path.string()));
  };
  check(snapshot);
  for (const auto& entry : fs::directory_iterator(snapshot)) check(entry.path());
}

}  // namespace

std::string hub_cache_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (auto folder = environment_variable(name)) return expand_home(*folder);
  }
  if (auto folder = environment_variable("HF_HOME")) return expand_home(*folder) + "/hub";
  const auto caches = environment_variable("XDG_CACHE_HOME");
  return expand_home(caches.value_or("~/.cache")) + "/huggingface/hub";
}

std::string find_model(const std::string& model) {
  std::error_code error;
  if (fs::is_directory(model, error)) return model;
  if (fs::exists(model, error))
    throw_io("{} is a file; -m takes the folder that holds config.json and the weights",
             printable(model));
  const auto repository = parse_repository(model);
  if (!repository)
    throw_io("there is no folder '{}', and it is no model name like org/name or org/name@revision",
             excerpt(model, 200));
  const fs::path cache = hub_cache_folder();
  const fs::path snapshot = find_snapshot(*repository, cache);
  check_links(snapshot, cache);
  return snapshot;
}

}  // namespace mica::cli
