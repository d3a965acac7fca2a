#include "profile.h"

#include <cstdio>

#include "core/profile_report.h"

namespace mica::cli {

void ProfileOptions::declare(Options& options) {
  options.group("Profiling")
      .flag("--profile", table_,
            "tell on standard error what each operation took, moved and computed, and which share "
            "of what the machine can do that is")
      .text("--trace", "FILE", trace_,
            "write every kernel as a trace that https://ui.perfetto.dev opens");
}

void ProfileOptions::start() const {
  if (wanted()) start_profile();
}

void ProfileOptions::finish() const {
  if (!wanted()) return;
  const Profile profile = stop_profile();
  if (trace_) save_profile(profile, *trace_);
  if (table_) std::fputs(profile_summary(profile, measured_ceilings()).c_str(), stderr);
}

}  // namespace mica::cli
