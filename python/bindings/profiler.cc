// mx.profiler: recordings of what evaluation did (core/profiler.h).
#include <mutex>

#include "base/error.h"
#include "common.h"
#include "core/profile_report.h"

namespace mica::python {

namespace {

using Held = std::shared_ptr<const Profile>;

// The recording that ended last.
struct Last {
  std::mutex mutex;
  Held profile;
};
Last& last() {
  static Last last;
  return last;
}

Held last_profile() {
  std::lock_guard lock(last().mutex);
  return last().profile;
}

Held stop() {
  ReleasedGil release;
  auto profile = std::make_shared<const Profile>(stop_profile());
  std::lock_guard lock(last().mutex);
  last().profile = profile;
  return profile;
}

const Profile& needed(const Held& held) {
  if (!held) throw_value("[profiler] nothing has been recorded yet");
  return *held;
}

std::string summary_of(const Held& held) {
  const Profile& profile = needed(held);
  ReleasedGil release;
  return profile_summary(profile, measured_ceilings());
}

void save(const Held& held, nb::handle path) {
  const Profile& profile = needed(held);
  PyObject* converted = nullptr;  // str, bytes or os.PathLike, without NUL
  if (!PyUnicode_FSConverter(path.ptr(), &converted)) throw nb::python_error();
  const std::string name = nb::steal<nb::bytes>(converted).c_str();
  ReleasedGil release;
  save_profile(profile, name);
}

nb::list operations_of(const Held& held) {
  const Profile& profile = needed(held);
  std::vector<ProfileOperation> rows;
  {
    ReleasedGil release;
    rows = profile_operations(profile, measured_ceilings());
  }
  nb::list list;
  for (const ProfileOperation& row : rows) {
    nb::dict dict;
    auto text = [](const std::string& value) { return nb::str(value.data(), value.size()); };
    auto known = [](double value) -> nb::object {
      return value > 0 ? nb::object(nb::float_(value)) : nb::none();
    };
    dict["name"] = text(row.name);
    dict["calls"] = row.calls;
    dict["seconds"] = static_cast<double>(row.duration) / 1e9;
    dict["bytes"] = row.bytes;
    dict["flops"] = known(row.flops);
    dict["share"] = known(row.share);
    dict["slowest_seconds"] = static_cast<double>(row.slowest) / 1e9;
    dict["slowest_call"] =
        text(call_text(profile.calls[static_cast<size_t>(row.slowest_call)], SIZE_MAX));
    list.append(dict);
  }
  return list;
}

// Empty until its recording ends.
struct Recording {
  Held profile;
};

constexpr const char* kDoc =
    "What evaluation spends its time on.\n\n"
    "    with mx.profiler.profile() as p:\n"
    "        mx.eval(model(x))\n"
    "    print(p.summary())\n"
    "    p.save(\"trace.json\")   # opens in https://ui.perfetto.dev\n\n"
    "Only what is evaluated between start and end is recorded, in all threads.";

constexpr const char* kSummaryDoc =
    "A table of the operations, longest first: calls, time, bytes, arithmetic, and the share of\n"
    "what the machine can do at most, which is measured at the first call, for about half a "
    "second.";
constexpr const char* kSaveDoc = "Writes every kernel and phase as a trace in Chrome's format.";

}  // namespace

void bind_profiler(nb::module_& m) {
  nb::module_ p = m.def_submodule("profiler", kDoc);
  nb::class_<Recording>(p, "profile", "A recording, from `with` to its end, or what stop() gives.")
      .def(nb::init<>())
      .def(
          "__enter__",
          [](nb::handle self) {
            start_profile();
            return nb::borrow(self);
          },
          nb::sig("def __enter__(self) -> profile"))
      .def(
          "__exit__", [](Recording& self, nb::args) { self.profile = stop(); },
          nb::sig("def __exit__(self, *args: Any) -> None"))
      .def(
          "summary",
          [](const Recording& self) {
            const std::string text = summary_of(self.profile);
            return nb::str(text.data(), text.size());
          },
          nb::sig("def summary(self) -> str"), kSummaryDoc)
      .def(
          "operations", [](const Recording& self) { return operations_of(self.profile); },
          nb::sig("def operations(self) -> list[dict[str, Any]]"),
          "The rows of the summary: name, calls, seconds, bytes, flops, share, slowest_seconds "
          "and\n"
          "slowest_call; None for what is not known.")
      .def(
          "save", [](const Recording& self, nb::handle path) { save(self.profile, path); },
          nb::arg("path"), nb::sig("def save(self, path: Any) -> None"), kSaveDoc);
  p.def("start", &start_profile, nb::sig("def start() -> None"),
        "Begins to record. ValueError if that is under way.");
  p.def(
      "stop", [] { return Recording{stop()}; }, nb::sig("def stop() -> profile"),
      "Ends the recording, after everything that mx.async_eval started.");
  p.def(
      "summary",
      [] {
        const std::string text = summary_of(last_profile());
        return nb::str(text.data(), text.size());
      },
      nb::sig("def summary() -> str"), "profile.summary() of the recording that ended last.");
  p.def(
      "save", [](nb::handle path) { save(last_profile(), path); }, nb::arg("path"),
      nb::sig("def save(path: Any) -> None"), "profile.save() of the recording that ended last.");
}

}  // namespace mica::python
