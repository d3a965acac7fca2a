#include "base/mapped_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"

namespace mica {
namespace {

int sum(std::span<const std::byte> bytes) {
  int total = 0;
  for (const std::byte byte : bytes) total += std::to_integer<int>(byte);
  return total;
}

TEST(MappedFileTest, MapsTheWholeFile) {
  TemporaryFolder folder;
  const std::string path = folder.write("file", "contents");
  const auto file = MappedFile::open(path);
  EXPECT_EQ(file->path(), path);
  EXPECT_EQ(file->size(), 8u);
  EXPECT_EQ(std::memcmp(file->bytes().data(), "contents", 8), 0);
  EXPECT_FALSE(file->damaged());
  file->check_unchanged();
}

TEST(MappedFileTest, EmptyFile) {
  TemporaryFolder folder;
  const auto file = MappedFile::open(folder.write("empty", ""));
  EXPECT_TRUE(file->bytes().empty());
  EXPECT_FALSE(file->damaged());
  file->check_unchanged();
}

TEST(MappedFileTest, ErrorsNamePathAndReason) {
  TemporaryFolder folder;
  expect_error(ErrorKind::Io, "/none: No such file",
               [&] { MappedFile::open(folder.path("none")); });
  expect_error(ErrorKind::Io, "Is a directory", [&] { MappedFile::open(folder.path()); });
  mkfifo(folder.path("pipe").c_str(), 0600);
  expect_error(ErrorKind::Io, "not a regular file", [&] { MappedFile::open(folder.path("pipe")); });
  expect_error(ErrorKind::Io, "not a regular file", [&] { MappedFile::open("/dev/zero"); });
  const std::string secret = folder.write("secret", "x");
  chmod(secret.c_str(), 0);
  if (geteuid() != 0) {
    expect_error(ErrorKind::Io, "Permission denied", [&] { MappedFile::open(secret); });
  }
}

TEST(MappedFileTest, TruncationIsAnErrorNotACrash) {
  TemporaryFolder folder;
  const std::string path = folder.write("file", std::string(1 << 20, '\1'));
  const auto file = MappedFile::open(path);
  const auto other = MappedFile::open(folder.write("other", std::string(100, '\2')));
  ASSERT_EQ(truncate(path.c_str(), 4096), 0);
  expect_error(ErrorKind::Io, "was changed", [&] { file->check_unchanged(); });
  EXPECT_EQ(sum(file->bytes()), 4096);
  EXPECT_TRUE(file->damaged());
  expect_error(ErrorKind::Io, "cut short", [&] { file->check_unchanged(); });
  EXPECT_EQ(sum(other->bytes()), 200);
  EXPECT_FALSE(other->damaged());
  other->check_unchanged();
}

TEST(MappedFileTest, ManyThreadsMeetTheTruncation) {
  TemporaryFolder folder;
  for (int round = 0; round < 10; ++round) {
    const std::string path = folder.write("file", std::string(1 << 20, '\1'));
    const auto file = MappedFile::open(path);
    ASSERT_EQ(truncate(path.c_str(), 0), 0);
    std::vector<std::thread> readers;
    for (size_t reader = 0; reader < 4; ++reader) {
      readers.emplace_back([&file, reader] {
        EXPECT_EQ(sum(file->bytes().subspan(reader << 18, 1 << 18)), 0);
        EXPECT_TRUE(file->damaged());
      });
    }
    for (auto& reader : readers) reader.join();
  }
  // The guard of a closed file serves the next one afresh.
  EXPECT_FALSE(MappedFile::open(folder.write("next", "x"))->damaged());
}

TEST(MappedFileTest, ChangedContentsAreNoticed) {
  TemporaryFolder folder;
  const std::string path = folder.write("file", "before");
  const auto file = MappedFile::open(path);
  const timespec times[2] = {{1, 0}, {1, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  expect_error(ErrorKind::Io, "was changed", [&] { file->check_unchanged(); });
}

TEST(MappedFileTest, ReplacingTheFileIsNoChange) {
  TemporaryFolder folder;
  const std::string path = folder.write("file", "before");
  const auto file = MappedFile::open(path);
  std::filesystem::rename(folder.write("new", "after all"), path);
  file->check_unchanged();
  EXPECT_EQ(std::memcmp(file->bytes().data(), "before", 6), 0);
}

// Kilobytes of mapped files that are part of this process.
int64_t resident_file_kb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssFile:")) return std::stoll(line.substr(8));
  }
  return 0;
}

TEST(MappedFileTest, ForgottenBytesAreStillThere) {
  TemporaryFolder folder;
  const size_t size = 16 << 20;
  // In pieces: a large block of the heap would raise the allocator's thresholds for other tests.
  {
    std::ofstream out(folder.path("file"), std::ios::binary);
    for (size_t i = 0; i < size; i += 4096) out << std::string(4096, '\1');
  }
  const auto file = MappedFile::open(folder.path("file"));
  EXPECT_EQ(sum(file->bytes()), static_cast<int>(size));
  const int64_t before = resident_file_kb();
  file->forget(file->bytes().data() + 1, size - 2);
  EXPECT_LT(resident_file_kb(), before - (12 << 10));
  file->forget(file->bytes().data() + 5, 7);
  EXPECT_EQ(sum(file->bytes()), static_cast<int>(size));
  EXPECT_FALSE(file->damaged());
}

// A file with a number in each page. Written in pieces: a large block of the heap would raise the
// allocator's thresholds for other tests.
std::string write_numbered(TemporaryFolder& folder, size_t size) {
  std::ofstream out(folder.path("numbered"), std::ios::binary);
  std::string page(4096, 'x');
  for (size_t i = 0; i < size; i += page.size()) {
    std::memcpy(page.data(), &i, sizeof(i));
    out.write(page.data(), static_cast<std::streamsize>(std::min(page.size(), size - i)));
  }
  return folder.path("numbered");
}

bool is_numbered(std::span<const std::byte> bytes) {
  for (size_t i = 0; i + sizeof(i) <= bytes.size(); i += 4096) {
    size_t number = 0;
    std::memcpy(&number, bytes.data() + i, sizeof(number));
    if (number != i || bytes[std::min(i + 4095, bytes.size() - 1)] != std::byte{'x'}) return false;
  }
  return true;
}

TEST(MappedFileTest, SettledBytesStayWhatAndWhereTheyAre) {
  TemporaryFolder folder;
  const size_t size = (16 << 20) + 100;
  const auto file = MappedFile::open(write_numbered(folder, size));
  const auto equal = [&] { return is_numbered(file->bytes()); };
  ASSERT_TRUE(equal());
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0}, looks{0};
  std::thread reader([&] {
    while (!done || looks == 0) {
      wrong += !equal();
      ++looks;
    }
  });
  const int64_t before = resident_file_kb();
  const size_t first = file->settle(1, size / 2);
  const size_t rest = file->settle(0, SIZE_MAX);
  done = true;
  reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(file->settle(0, size), 0u);
  if (first == 0) return;  // the system has no huge pages to give
  EXPECT_LT(first, size / 2);
  EXPECT_EQ(first + rest, size_t{16} << 20);
  EXPECT_LT(resident_file_kb(), before - (12 << 10));
  file->forget(file->bytes().data(), size);
  EXPECT_TRUE(equal());
  // What has settled no longer depends on the file.
  std::filesystem::resize_file(file->path(), 0);
  EXPECT_TRUE(is_numbered(file->bytes().first(16 << 20)));
  EXPECT_FALSE(file->damaged());
  expect_error(ErrorKind::Io, "changed", [&] { file->check_unchanged(); });
}

bool is_resident(std::span<const std::byte> bytes) {
  std::vector<unsigned char> pages((bytes.size() + 4095) / 4096);
  mincore(const_cast<std::byte*>(bytes.data()), bytes.size(), pages.data());
  return std::any_of(pages.begin(), pages.end(), [](unsigned char state) { return state & 1; });
}

TEST(MappedFileTest, WhatIsOnTheDiskOnlyDoesNotSettle) {
  TemporaryFolder folder;
  const std::string file_path = write_numbered(folder, 8 << 20);
  const int descriptor = open(file_path.c_str(), O_RDONLY);
  fsync(descriptor);
  posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  close(descriptor);
  const auto file = MappedFile::open(file_path);
  // Unless the folder for temporary files is memory.
  if (!is_resident(file->bytes())) {
    EXPECT_EQ(file->settle(0, SIZE_MAX), 0u);
  }
  EXPECT_TRUE(is_numbered(file->bytes()));
}

TEST(MappedFileTest, SettlingWhatIsSmallOrOutsideDoesNothing) {
  TemporaryFolder folder;
  const auto small = MappedFile::open(folder.write("small", "abc"));
  EXPECT_EQ(small->settle(0, 3), 0u);
  EXPECT_EQ(small->settle(7, 100), 0u);
  EXPECT_EQ(MappedFile::open(folder.write("empty", ""))->settle(0, 10), 0u);
}

// A SIGBUS that is not ours goes to the action that was set before the first mapping.
TEST(MappedFileTest, OtherBusErrorsKeepTheirAction) {
  TemporaryFolder folder;
  const std::string path = folder.write("file", std::string(8192, '\1'));
  const auto ours = MappedFile::open(folder.write("ours", "x"));
  const pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);  // a sanitizer reports the fault
    const int descriptor = open(path.c_str(), O_RDONLY);
    const char* data =
        static_cast<char*>(mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE, descriptor, 0));
    if (truncate(path.c_str(), 0) != 0) _exit(3);
    volatile char read = data[4096];
    _exit(read == 0 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_NE(status, 0);
  if (WIFSIGNALED(status)) {
    EXPECT_EQ(WTERMSIG(status), SIGBUS);
  }
}

}  // namespace
}  // namespace mica
