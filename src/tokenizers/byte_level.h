// The byte-level alphabet of GPT-2: every byte is one printable character, so that a vocabulary
// over characters covers all texts.
//
//   append_byte_level(out, "é ");  // "Ã©Ġ"
//
// Bytes that are printable in Latin-1 stand for themselves, the others for U+0100 and on, in order.
// Source: https://github.com/openai/gpt-2/blob/master/src/encoder.py (bytes_to_unicode).
#pragma once

#include <string>
#include <string_view>

namespace mica::tokenizers {

// Appends the characters of all bytes. Ten times as fast as character by character.
void append_byte_level(std::string& out, std::string_view bytes);

// Appends the bytes that the characters stand for; false, and nothing appended, if one of them is
// not of the alphabet.
bool append_bytes_of_level(std::string& out, std::string_view text);

}  // namespace mica::tokenizers
