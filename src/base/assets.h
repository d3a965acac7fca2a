// Files that ship with Mica, such as the default model, found wherever the program was installed or
// built.
#pragma once

#include <string>
#include <string_view>

namespace mica {

// The path of a shipped file or folder, from the first of these places that has it:
// $MICA_ASSETS/<name>; <prefix>/share/mica/<name> for a program in <prefix>/bin;
// <source>/assets/<name> for one in <source>/build/<preset>/bin. Throws Io with the places if none
// has it.
std::string asset_path(std::string_view name);

}  // namespace mica
