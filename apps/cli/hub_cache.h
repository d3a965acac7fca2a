// Models in the local Hugging Face cache, as huggingface_hub lays it out
// (https://huggingface.co/docs/huggingface_hub/guides/manage-cache):
//
//   <cache>/models--org--name/refs/<revision>       a file that holds a commit
//   <cache>/models--org--name/snapshots/<commit>/   files, links into ../../blobs
//
// <cache> is $HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub or
// ~/.cache/huggingface/hub, the first whose variable is set.
#pragma once

#include <string>

namespace mica::cli {

// The folder that `-m` means: an existing path wins, else org/name[@revision] in the cache (the
// revision is a branch, a tag or a whole commit; main if absent). Throws Io saying how to get the
// model if there is none, and if a link of the snapshot leads out of the cache.
std::string find_model(const std::string& model);

// The cache's folder, which need not exist.
std::string hub_cache_folder();

}  // namespace mica::cli
