#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"

namespace mica {
namespace {

size_t count_files(const TemporaryFolder& folder) {
  const std::filesystem::directory_iterator files(folder.path());
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

TEST(FileTest, ReadsWithinTheLimit) {
  TemporaryFolder folder;
  const std::string path = folder.write("file", std::string(10000, 'x'));
  EXPECT_EQ(read_file(path, 10000), std::string(10000, 'x'));
  expect_error(ErrorKind::Io, "file is larger than the 9.8 KiB allowed",
               [&] { read_file(path, 9999); });
  EXPECT_EQ(read_file(folder.write("empty", ""), 0), "");
  EXPECT_FALSE(read_file("/proc/self/status", 1 << 20).empty());  // says its size is 0
  expect_error(ErrorKind::Io, "larger than", [] { read_file("/dev/zero", 100000); });
  expect_error(ErrorKind::Io, "none: No such file", [&] { read_file(folder.path("none"), 1); });
  expect_error(ErrorKind::Io, "Is a directory", [&] { read_file(folder.path(), 1 << 20); });
}

TEST(FileTest, ReadsPipes) {
  TemporaryFolder folder;
  mkfifo(folder.path("pipe").c_str(), 0600);
  std::thread writer([&] { folder.write("pipe", std::string(100000, 'y')); });
  EXPECT_EQ(read_file(folder.path("pipe"), 1 << 20), std::string(100000, 'y'));
  writer.join();
}

TEST(FileTest, WritesAtomically) {
  TemporaryFolder folder;
  const std::string path = folder.write("file", "old");
  {
    AtomicFile file(path);
    file.write("half");
    EXPECT_EQ(read_file(path, 100), "old");
  }
  EXPECT_EQ(read_file(path, 100), "old");
  EXPECT_EQ(count_files(folder), 1u);
  AtomicFile file(path);
  file.write("new ");
  file.write("contents");
  file.commit(true);
  EXPECT_EQ(read_file(path, 100), "new contents");
  write_file(path, "again");
  EXPECT_EQ(read_file(path, 100), "again");
  EXPECT_EQ(count_files(folder), 1u);
}

TEST(FileTest, WritesInAnyOrder) {
  TemporaryFolder folder;
  const std::string path = folder.path("file");
  AtomicFile file(path);
  file.reserve(12);
  file.write("head");
  file.write_at(8, "tail");
  file.write(" or ");
  file.close();
  EXPECT_FALSE(std::filesystem::exists(path));
  expect_error(ErrorKind::Io, "cannot write " + path, [&] { file.write_at(0, "x"); });
  file.commit();
  EXPECT_EQ(read_file(path, 100), "head or tail");
  EXPECT_EQ(count_files(folder), 1u);
}

TEST(FileTest, WriteErrorsNameThePath) {
  TemporaryFolder folder;
  expect_error(ErrorKind::Io, "cannot write " + folder.path("none/file") + ": No such file",
               [&] { write_file(folder.path("none/file"), "x"); });
  std::filesystem::create_directory(folder.path("folder"));
  expect_error(ErrorKind::Io, "Is a directory", [&] { write_file(folder.path("folder"), "x"); });
  EXPECT_EQ(count_files(folder), 1u);
}

TEST(FileTest, PathComponents) {
  for (const char* name : {"model.safetensors", "a", ".hidden", "..a", "a b"}) {
    EXPECT_TRUE(is_path_component(name)) << name;
  }
  for (const char* name : {"", ".", "..", "/", "a/b", "../x", "a\\b", "/etc/passwd"}) {
    EXPECT_FALSE(is_path_component(name)) << name;
  }
  EXPECT_FALSE(is_path_component(std::string_view("a\0b", 3)));
}

}  // namespace
}  // namespace mica
