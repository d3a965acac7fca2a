// Computes one sum with the installed library and prints it.
#include <mica/mica.h>

#include <cstdio>

int main() {
  const mica::Array x = mica::Array::from<float>({1, 2, 3, 4}, {2, 2});
  const float total = mica::sum(x * x).item<float>();
  std::printf("%g\n", total);
  return total == 30 ? 0 : 1;
}
