// mica devices: what Mica can compute on here.
#include <fstream>

#include "base/cgroup.h"
#include "base/environment.h"
#include "base/json_writer.h"
#include "base/memory_info.h"
#include "base/strings.h"
#include "common.h"
#include "core/device.h"
#include "subcommand.h"

namespace mica::cli {
namespace {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return std::string(trim(line.substr(line.find(':') + 1)));
  }
  return "unknown processor";
}

// Instruction sets that kernels choose by.
std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) names.push_back("avx2");
  if (__builtin_cpu_supports("fma")) names.push_back("fma");
  if (__builtin_cpu_supports("avx512f")) names.push_back("avx512f");
  if (__builtin_cpu_supports("avx512bw")) names.push_back("avx512bw");
  if (__builtin_cpu_supports("avx512vnni")) names.push_back("avx512vnni");
  if (__builtin_cpu_supports("avx512bf16")) names.push_back("avx512bf16");
#endif
  return names;
}

class Devices : public Subcommand {
 public:
  const char* summary() const override { return "lists the devices that can compute"; }

  void declare(Options& options) override {
    options.example("mica devices", "a line or two per device")
        .example("mica devices --format json", "for programs");
    common_.declare_rest(options);
  }

  int run() override {
    common_.apply();
    write_output(common_.json() ? json() : text());
    return kSuccess;
  }

 private:
  static std::string json() {
    JsonWriter json;
    json.begin_object().key("devices").begin_array();
    json.begin_object().key("name").value("cpu").key("default").value(true);
    json.key("processor").value(processor_name()).key("threads").value(usable_cpus());
    json.key("instruction_sets").value(instruction_sets());
    json.key("available_bytes").value(available_memory()).key("memory_limit_bytes");
    const auto group = cgroup_memory();
    group ? json.value(group->limit) : json.null();
    json.end_object().begin_object().key("name").value("ref").key("default").value(false);
    return json.end_object().end_array().end_object().take() + '\n';
  }

  static std::string text() {
    const auto group = cgroup_memory();
    return fmt::format(
        "cpu (default)  {}\n"
        "               {} threads, {}; {} of memory available{}\n"
        "ref            the slow definition of every operation, for tests: --device ref\n",
        printable(processor_name()), usable_cpus(), join(instruction_sets(), " "),
        human_size(available_memory()),
        group ? fmt::format(", control group limit {}", human_size(group->limit)) : "");
  }

  CommonOptions common_;
};

}  // namespace

std::unique_ptr<Subcommand> devices_command() { return std::make_unique<Devices>(); }

}  // namespace mica::cli
