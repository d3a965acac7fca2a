// What the process finds around it: cgroups, memory, environment, assets; and what it tells:
// warnings, progress.
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/assets.h"
#include "base/cgroup.h"
#include "base/environment.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/memory_info.h"
#include "base/progress.h"
#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"

namespace mica {
namespace {

// Sets an environment variable for a test.
class Setting {
 public:
  Setting(const char* name, const std::string& value)
      : name_(name), before_(environment_variable(name)) {
    setenv(name, value.c_str(), 1);
  }
  ~Setting() { before_ ? setenv(name_, before_->c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

TEST(CgroupTest, Version2TakesTheTightestOfThePath) {
  TemporaryFolder root;
  root.write("proc/self/cgroup", "0::/app/job\n");
  root.write("proc/self/mountinfo", "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
  root.write("sys/fs/cgroup/app/cpu.max", "150000 100000\n");
  root.write("sys/fs/cgroup/app/job/cpu.max", "max 100000\n");
  root.write("sys/fs/cgroup/app/job/memory.max", "max\n");
  root.write("sys/fs/cgroup/app/job/memory.current", "1000\n");
  root.write("sys/fs/cgroup/app/memory.max", "10000\n");
  root.write("sys/fs/cgroup/app/memory.current", "7000\n");
  root.write("sys/fs/cgroup/app/memory.stat",
             "anon 3000\ninactive_file 2500\nactive_file 500\nslab 9\n");
  EXPECT_EQ(cgroup_cpu_quota(root.path()), 1.5);
  const auto memory = cgroup_memory(root.path());
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->limit, 10000u);
  EXPECT_EQ(memory->available, 6000u);
}

TEST(CgroupTest, Version1InAContainer) {
  TemporaryFolder root;
  root.write("proc/self/cgroup", "5:cpuacct,cpu:/docker/abc\n4:memory:/docker/abc\n0::/\n");
  root.write(
      "proc/self/mountinfo",
      "31 24 0:27 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
      "32 24 0:28 /docker/abc /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n");
  root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n");
  root.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
  root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "6000\n");
  root.write("proc/meminfo", "MemTotal: 100 kB\nMemAvailable: 50 kB\n");
  EXPECT_EQ(cgroup_cpu_quota(root.path()), 3.0);
  EXPECT_EQ(cgroup_memory(root.path())->available, 0u);
  EXPECT_EQ(available_memory(root.path()), 0u);
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_FALSE(cgroup_memory(root.path()));
  EXPECT_EQ(available_memory(root.path()), 50u * 1024);
  root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  EXPECT_FALSE(cgroup_cpu_quota(root.path()));
}

TEST(CgroupTest, WithoutCgroups) {
  TemporaryFolder root;
  EXPECT_FALSE(cgroup_cpu_quota(root.path()));
  EXPECT_FALSE(cgroup_memory(root.path()));
  EXPECT_EQ(available_memory(root.path()), 0u);
  root.write("proc/self/cgroup", "nonsense\n0:\n::\n");
  root.write("proc/self/mountinfo", "1\n- \n1 2 3 / /x - cgroup2\n");
  EXPECT_FALSE(cgroup_cpu_quota(root.path()));
}

TEST(MemoryInfoTest, TellsAnonymousFromFile) {
  constexpr size_t kSize = 16 << 20;
  TemporaryFolder folder;
  const auto file = MappedFile::open(folder.write("file", std::string(kSize, 'x')));
  const MemoryUsage before = memory_usage();
  const std::string allocated(kSize, 'y');
  const MemoryUsage with_heap = memory_usage();
  size_t sum = 0;
  for (size_t i = 0; i < kSize; i += 4096) sum += std::to_integer<size_t>(file->bytes()[i]);
  const MemoryUsage with_file = memory_usage();
  constexpr size_t kMost = kSize / 10 * 9;
  EXPECT_EQ(sum, kSize / 4096 * 'x');
  EXPECT_EQ(allocated[5], 'y');
  EXPECT_GE(with_heap.anonymous, before.anonymous + kMost);
  EXPECT_GE(with_file.file, with_heap.file + kMost);
#ifndef __SANITIZE_THREAD__  // its bookkeeping of the bytes read is anonymous
  EXPECT_LT(with_file.anonymous, with_heap.anonymous + kMost);
#endif
  EXPECT_GE(with_file.peak, before.resident + kMost);
  EXPECT_GT(available_memory(), 0u);
}

TEST(EnvironmentTest, CountsCpus) {
  EXPECT_GE(usable_cpus(), 1);
  EXPECT_FALSE(process_affinity().empty());
}

TEST(EnvironmentTest, CacheFolderIsPrivate) {
  TemporaryFolder folder;
  const Setting home("HOME", folder.path("home"));
  {
    const Setting cache("XDG_CACHE_HOME", folder.path("deep/cache"));
    EXPECT_EQ(cache_folder(), folder.path("deep/cache/mica"));
    struct stat status{};
    ASSERT_EQ(stat(cache_folder().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700u);
  }
  const Setting relative("XDG_CACHE_HOME", "relative");
  EXPECT_EQ(cache_folder(), folder.path("home/.cache/mica"));
  folder.write("file/mica", "in the way");
  const Setting blocked("XDG_CACHE_HOME", folder.path("file"));
  expect_error(ErrorKind::Io, "is not a folder of this user", [] { cache_folder(); });
  const Setting missing("XDG_CACHE_HOME", folder.path("file/mica"));
  expect_error(ErrorKind::Io, "cannot make the cache folder", [] { cache_folder(); });
}

TEST(AssetsTest, LooksWhereTheyMayBe) {
  TemporaryFolder folder;
  folder.write("model/config.json", "{}");
  const Setting assets("MICA_ASSETS", folder.path());
  EXPECT_EQ(asset_path("model/config.json"), folder.path("model/config.json"));
  expect_error(ErrorKind::Io, "share/mica/none", [] { asset_path("none"); });
  expect_error(ErrorKind::Io, folder.path("none"), [] { asset_path("none"); });
}

TEST(LogTest, WarningsGoToTheSink) {
  std::string seen;
  warn("dropped {}", 0);
  set_warning_sink([&](std::string_view text) { seen += text; });
  warn("{} of {}", 1, 2);
  set_warning_sink(nullptr);
  warn("dropped {}", 3);
  EXPECT_EQ(seen, "1 of 2");
}

TEST(ProgressTest, LineFitsTheWidth) {
  using Unit = Progress::Unit;
  EXPECT_EQ(progress_line("load", 0, 10, Unit::Count, 2, 80),
            "load   0 % [>                             ] 0 of 10");
  EXPECT_EQ(progress_line("load", 5, 10, Unit::Count, 2, 80),
            "load  50 % [===============>              ] 5 of 10, 2 s left");
  EXPECT_EQ(progress_line("load", 3 << 20, 2 << 20, Unit::Bytes, 2, 80),
            "load 100 % [==============================] 2.0 MiB of 2.0 MiB, 0 s left");
  EXPECT_EQ(progress_line("load", 1, 4000, Unit::Count, 3, 80),
            "load   0 % [>                             ] 1 of 4000, 3 h 19 min left");
  EXPECT_EQ(progress_line("read", 7, 0, Unit::Count, 61, 80), "read  7, 1 min 1 s");
  for (size_t width = 1; width < 80; ++width) {
    EXPECT_LE(progress_line("load", 5, 10, Unit::Count, 2, width).size(), width);
  }
}

// What a child that makes progress for a while writes to the terminal that is its standard error.
std::string terminal_output(bool enabled, Progress::Clock::duration delay) {
  std::fflush(nullptr);  // or the child might write it
  int terminal = -1;
  const pid_t child = forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child == 0) {
    setenv("TERM", "xterm", 1);
    Progress::enable(enabled);
    {
      Progress progress("work", 100, Progress::Unit::Count, delay);
      for (int i = 0; i < 30; ++i) {
        progress.advance();
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    }
    _exit(0);
  }
  if (child < 0) {
    ADD_FAILURE() << "no pseudo-terminal (is /dev/pts mounted?): " << std::strerror(errno);
    return "";
  }
  std::string output;
  char buffer[4096];
  for (ssize_t count; (count = read(terminal, buffer, sizeof(buffer))) > 0;) {
    output.append(buffer, static_cast<size_t>(count));
  }
  waitpid(child, nullptr, 0);
  close(terminal);
  return output;
}

TEST(ProgressTest, ShowsOnATerminalAfterAWhile) {
  using std::chrono::milliseconds;
  EXPECT_EQ(terminal_output(true, std::chrono::seconds(1)), "");
  EXPECT_EQ(terminal_output(false, milliseconds(0)), "");
  const std::string output = terminal_output(true, milliseconds(0));
  EXPECT_TRUE(output.starts_with("\r\x1b[Kwork   1 % [>")) << output;
  EXPECT_TRUE(output.ends_with("\r\x1b[K")) << output;
}

}  // namespace
}  // namespace mica
