#include "core/profile_report.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/json_writer.h"
#include "base/strings.h"

namespace mica {

namespace {

Ceilings measure() {
  Ceilings ceilings;
  try {
    MemoryReader reader;
    for (int i = 0; i < 4; ++i) ceilings.read = std::max(ceilings.read, reader.read());
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::OutOfMemory) throw;  // without the block, without the figure
  }
  for (int i = 0; i < 4; ++i) {
    for (Arithmetic kind : {Arithmetic::Float32, Arithmetic::Bfloat16, Arithmetic::Int8})
      ceilings.of(kind) = std::max(ceilings.of(kind), arithmetic_ceiling(kind));
  }
  return ceilings;
}

bool is_phase(const ProfileEvent& event) { return event.call < 0; }

// Seconds that the machine needs at least.
double least_time(const ProfileEvent& event, const Ceilings& ceilings) {
  const double peak = ceilings.of(event.arithmetic);
  return std::max(ceilings.read > 0 ? event.bytes / ceilings.read : 0,
                  peak > 0 ? event.flops / peak : 0);
}

const char* kind_name(ProfileKind kind) {
  switch (kind) {
    case ProfileKind::Collect: return "collect";
    case ProfileKind::Plan: return "plan";
    case ProfileKind::Run: return "run";
    case ProfileKind::Kernel: return "kernel";
    case ProfileKind::Region: return "region";
    default: return "copy";
  }
}

// "1.23 ms"
std::string time_text(double nanoseconds) {
  if (nanoseconds >= 1e9) return fmt::format("{:.2f} s", nanoseconds / 1e9);
  if (nanoseconds >= 1e6) return fmt::format("{:.2f} ms", nanoseconds / 1e6);
  return fmt::format("{:.2f} us", nanoseconds / 1e3);
}

std::string bytes_text(double bytes) {
  return human_size(static_cast<uint64_t>(std::min(bytes, 1e18)));
}

std::string operand_text(const std::vector<ProfileCall::Operand>& operands, size_t most) {
  std::string text;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (i == most) return text + fmt::format(" and {} more", operands.size() - most);
    if (i) text += ", ";
    text += fmt::format("{} {}", operands[i].dtype, operands[i].shape);
  }
  return text;
}

std::string phases_text(const Profile& profile) {
  std::map<ProfileKind, int64_t> phases;
  int64_t kernels = 0, elsewhere = profile.duration;
  for (const ProfileEvent& event : profile.events) {
    (is_phase(event) ? phases[event.kind] : kernels) += event.duration;
    if (is_phase(event)) elsewhere -= event.duration;
  }
  auto text = [](int64_t nanoseconds) { return time_text(static_cast<double>(nanoseconds)); };
  return fmt::format("recorded {}: run {} (kernels {}), plan {}, collect {}, elsewhere {}\n",
                     text(profile.duration), text(phases[ProfileKind::Run]), text(kernels),
                     text(phases[ProfileKind::Plan]), text(phases[ProfileKind::Collect]),
                     text(std::max<int64_t>(elsewhere, 0)));
}

std::string row_text(const Profile& profile, const ProfileOperation& row, int64_t total) {
  const auto seconds = static_cast<double>(row.duration) / 1e9;
  auto rate = [&](double amount) {
    return amount > 0 ? fmt::format("{:.1f}", amount / seconds / 1e9) : std::string("-");
  };
  return fmt::format("{:<32} {:>8} {:>10} {:>5.1f} {:>10} {:>10} {:>7} {:>8} {:>5}  {}: {}\n",
                     excerpt(row.name, 29), row.calls, time_text(static_cast<double>(row.duration)),
                     100.0 * static_cast<double>(row.duration) / static_cast<double>(total),
                     time_text(static_cast<double>(row.duration) / static_cast<double>(row.calls)),
                     bytes_text(row.bytes), rate(row.bytes), rate(row.flops),
                     row.share > 0 ? fmt::format("{:.2f}", row.share) : "-",
                     time_text(static_cast<double>(row.slowest)),
                     call_text(profile.calls[static_cast<size_t>(row.slowest_call)]));
}

void write_operands(JsonWriter& json, const char* key,
                    const std::vector<ProfileCall::Operand>& operands) {
  json.key(key).begin_array();
  for (const auto& operand : operands)
    json.value(fmt::format("{} {}", operand.dtype, operand.shape));
  json.end_array();
}

void write_event(JsonWriter& json, const Profile& profile, const ProfileEvent& event) {
  const ProfileCall* call =
      is_phase(event) ? nullptr : &profile.calls[static_cast<size_t>(event.call)];
  json.begin_object().key("name").value(call ? call->name : kind_name(event.kind));
  json.key("cat").value(call ? kind_name(event.kind) : "phase").key("ph").value("X");
  json.key("pid").value(1).key("tid").value(event.thread + 1);
  json.key("ts").value(static_cast<double>(event.start) / 1e3);
  json.key("dur").value(static_cast<double>(event.duration) / 1e3);
  if (call) {
    json.key("args").begin_object();
    write_operands(json, "inputs", call->inputs);
    write_operands(json, "outputs", call->outputs);
    json.key("bytes").value(event.bytes);
    if (event.flops > 0) {
      const bool integers = event.arithmetic == Arithmetic::Int8;
      json.key(integers ? "int8_operations" : "flops").value(event.flops);
    }
    json.end_object();
  }
  json.end_object();
}

void write_name(JsonWriter& json, const char* what, int32_t thread, const std::string& name) {
  json.begin_object().key("name").value(what).key("ph").value("M").key("pid").value(1);
  json.key("tid").value(thread).key("args").begin_object().key("name").value(name);
  json.end_object().end_object();
}

}  // namespace

const Ceilings& measured_ceilings() {
  static const Ceilings ceilings = measure();
  return ceilings;
}

std::vector<ProfileOperation> profile_operations(const Profile& profile, const Ceilings& ceilings) {
  std::map<std::string, ProfileOperation> by_name;
  for (const ProfileEvent& event : profile.events) {
    if (is_phase(event)) continue;
    const std::string& name = profile.calls[static_cast<size_t>(event.call)].name;
    ProfileOperation& row = by_name[name];
    row.name = name;
    row.kind = event.kind;
    ++row.calls;
    row.duration += event.duration;
    row.bytes += event.bytes;
    row.flops += event.flops;
    row.share += least_time(event, ceilings);  // becomes a share below
    if (row.slowest_call >= 0 && event.duration <= row.slowest) continue;
    row.slowest = event.duration;
    row.slowest_call = event.call;
  }
  std::vector<ProfileOperation> rows;
  for (auto& [name, row] : by_name) {
    row.share = row.duration > 0 ? row.share * 1e9 / static_cast<double>(row.duration) : 0;
    rows.push_back(std::move(row));
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.duration > b.duration; });
  return rows;
}

std::string call_text(const ProfileCall& call, size_t most) {
  return operand_text(call.inputs, most) + " -> " + operand_text(call.outputs, most);
}

std::string profile_summary(const Profile& profile, const Ceilings& ceilings) {
  std::string text = phases_text(profile);
  auto rate = [](double amount, const char* unit) {
    return amount > 0 ? fmt::format("{:.1f} {}", amount / 1e9, unit) : std::string("not known");
  };
  text += fmt::format("ceilings: read {}, float32 {}, bfloat16 {}, int8 {}\n\n",
                      rate(ceilings.read, "GB/s"), rate(ceilings.float32, "GFLOP/s"),
                      rate(ceilings.bfloat16, "GFLOP/s"), rate(ceilings.int8, "GOP/s"));
  const std::vector<ProfileOperation> rows = profile_operations(profile, ceilings);
  text += fmt::format("{:<32} {:>8} {:>10} {:>5} {:>10} {:>10} {:>7} {:>8} {:>5}  {}\n",
                      "operation", "calls", "time", "%", "mean", "bytes", "GB/s", "GFLOP/s",
                      "share", "slowest call");
  int64_t total = 0;
  for (const ProfileOperation& row : rows) total += row.duration;
  for (const ProfileOperation& row : rows)
    text += row_text(profile, row, std::max<int64_t>(total, 1));
  if (profile.dropped > 0)
    text += fmt::format("{} further events were not recorded: the first {} were\n", profile.dropped,
                        profile.events.size());
  return text;
}

void save_profile(const Profile& profile, const std::string& path) {
  constexpr size_t kBlock = 1 << 20;
  AtomicFile file(path);
  JsonWriter json;
  json.begin_object().key("displayTimeUnit").value("ns").key("traceEvents").begin_array();
  write_name(json, "process_name", 0, "mica");
  int32_t threads = 0;
  for (const ProfileEvent& event : profile.events) threads = std::max(threads, event.thread + 1);
  for (int32_t i = 1; i <= threads; ++i)
    write_name(json, "thread_name", i, fmt::format("evaluating thread {}", i));
  for (const ProfileEvent& event : profile.events) {
    write_event(json, profile, event);
    if (json.text().size() > kBlock) file.write(json.take());
  }
  json.end_array().key("otherData").begin_object();
  json.key("dropped_events").value(profile.dropped).end_object().end_object();
  file.write(json.take());
  file.commit();
}

}  // namespace mica
