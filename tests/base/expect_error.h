// expect_error(kind, "part of the message", [&] { statement; }): the statement throws this
// mica::Error.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "base/error.h"

namespace mica {

template <class F>
void expect_error(ErrorKind kind, std::string_view part, F&& statement) {
  try {
    statement();
    ADD_FAILURE() << "no error; expected: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error_kind_name(error.kind()), std::string(error_kind_name(kind))) << error.what();
    EXPECT_NE(std::string_view(error.what()).find(part), std::string_view::npos)
        << "message: " << error.what() << "\nexpected part: " << part;
  }
}

}  // namespace mica
