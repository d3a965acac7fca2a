#include "base/assets.h"

#include <filesystem>
#include <vector>

#include "base/environment.h"
#include "base/error.h"
#include "base/strings.h"

namespace mica {

std::string asset_path(std::string_view name) {
  namespace fs = std::filesystem;
  std::vector<fs::path> folders;
  if (const auto folder = environment_variable("MICA_ASSETS")) folders.emplace_back(*folder);
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    const fs::path bin = program.parent_path();
    folders.push_back(bin / "../share/mica");
    folders.push_back(bin / "../../../assets");
  }
  std::vector<std::string> tried;
  for (const fs::path& folder : folders) {
    const fs::path place = (folder / name).lexically_normal();
    if (fs::exists(place, error)) return place;
    tried.push_back(printable(place.string()));
  }
  throw_io(
      "cannot find '{}', which ships with Mica; looked for {}; MICA_ASSETS may name its folder",
      excerpt(name), join(tried, ", "));
}

}  // namespace mica
