// Sums of cotangents.
//
// Rules of reading operations (slices, take, take_along_axis) write the cotangent of what was read
// into zeros. Where another cotangent of the same array is there already, such a term is added to
// the places it has in that one, and slices that do not overlap go into one array: neither zeros
// nor sums over whole arrays are made.
#pragma once

#include "core/array.h"

namespace mica::transforms {

// sum += term, or sum = term where there is none yet. Undefined terms are nothing.
void accumulate(Array& sum, Array term, Stream stream);

}  // namespace mica::transforms
