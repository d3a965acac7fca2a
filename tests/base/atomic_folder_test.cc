#include "base/atomic_folder.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "tests/base/expect_error.h"
#include "tests/base/temporary_folder.h"

namespace mica {
namespace {

void make(const std::string& path, bool replace, bool commit) {
  AtomicFolder folder(path, replace);
  write_file(folder.path() + "/new", "");
  if (commit) folder.commit();
}

TEST(AtomicFolderTest, AppearsWhenComplete) {
  TemporaryFolder in;
  make(in.path("a/b/"), false, false);
  EXPECT_TRUE(names_in(in.path("a")).empty());
  make(in.path("a/b/"), false, true);
  EXPECT_EQ(names_in(in.path("a")), std::vector<std::string>{"b"});
  EXPECT_EQ(names_in(in.path("a/b")), std::vector<std::string>{"new"});
  std::filesystem::create_directory(in.path("empty"));
  make(in.path("empty"), false, true);
  EXPECT_EQ(names_in(in.path("empty")), std::vector<std::string>{"new"});
}

TEST(AtomicFolderTest, TakesRelativeNames) {
  TemporaryFolder in;
  auto before = std::filesystem::current_path();
  std::filesystem::current_path(in.path());
  make("here", false, true);
  std::filesystem::current_path(before);
  EXPECT_EQ(names_in(in.path()), std::vector<std::string>{"here"});
}

TEST(AtomicFolderTest, ReplacesOnlyIfAsked) {
  TemporaryFolder in;
  in.write("full/old", "");
  in.write("file", "");
  expect_error(ErrorKind::Io, "full exists and is not empty",
               [&] { make(in.path("full"), false, true); });
  make(in.path("full"), true, false);
  EXPECT_EQ(names_in(in.path("full")), std::vector<std::string>{"old"});
  make(in.path("full"), true, true);
  EXPECT_EQ(names_in(in.path("full")), std::vector<std::string>{"new"});
  expect_error(ErrorKind::Io, "is not a folder", [&] { make(in.path("file"), true, true); });
  EXPECT_EQ(names_in(in.path()), (std::vector<std::string>{"file", "full"}));
}

// What came meanwhile is not lost.
TEST(AtomicFolderTest, LooksAgainAtTheEnd) {
  TemporaryFolder in;
  AtomicFolder folder(in.path("a"));
  in.write("a/late", "");
  expect_error(ErrorKind::Io, "is not empty", [&] { folder.commit(); });
  EXPECT_EQ(names_in(in.path("a")), std::vector<std::string>{"late"});
}

}  // namespace
}  // namespace mica
