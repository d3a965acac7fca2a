#include "base/mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <mutex>

#include "base/error.h"
#include "base/file.h"
#include "base/strings.h"
#include "base/thread_pool.h"

namespace mica {

// Guards form a list that only grows, so that the handler may walk it at any moment; a guard whose
// begin is 0 is free.
struct MappedFile::Guard {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> damaged{false};
  Guard* next = nullptr;
};

namespace {

using Guard = MappedFile::Guard;

std::mutex guards_mutex;
std::atomic<Guard*> guards{nullptr};
struct sigaction previous_action;
uintptr_t page_size = 0;

static_assert(std::atomic<uintptr_t>::is_always_lock_free);

Guard* guard_of(uintptr_t address) {
  for (Guard* guard = guards.load(); guard != nullptr; guard = guard->next) {
    const uintptr_t begin = guard->begin.load();
    const uintptr_t end = guard->end.load();
    // Read twice, in case another thread is giving the guard to another mapping.
    if (begin != 0 && begin <= address && address < end && guard->begin.load() == begin)
      return guard;
  }
  return nullptr;
}

// Replaces the pages from the faulting one to the end of the mapping by zeros.
bool replace_lost_pages(uintptr_t address) {
  Guard* guard = guard_of(address);
  if (guard == nullptr) return false;
  guard->damaged.store(true);
  const uintptr_t begin = address & ~(page_size - 1);
  // The plain system call, since the C function may be a sanitizer's, not meant for handlers.
  const long mapped = syscall(SYS_mmap, begin, guard->end.load() - begin, PROT_READ,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  return static_cast<uintptr_t>(mapped) == begin;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const bool from_memory = info->si_code > 0;  // as opposed to kill(2)
  if (from_memory && replace_lost_pages(reinterpret_cast<uintptr_t>(info->si_addr))) {
    errno = saved_errno;
    return;
  }
  if (previous_action.sa_flags & SA_SIGINFO) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    // With the old action in place the access faults again on return; a sent signal is sent again.
    sigaction(SIGBUS, &previous_action, nullptr);
    if (!from_memory) raise(signal);
  }
  errno = saved_errno;
}

Guard* add_guard(const std::byte* data, size_t size) {
  std::lock_guard lock(guards_mutex);
  if (page_size == 0) {
    page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action{};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, nullptr, &previous_action);  // before the handler can run
    sigaction(SIGBUS, &action, nullptr);
  }
  Guard* guard = guards.load();
  while (guard != nullptr && guard->begin.load() != 0) guard = guard->next;
  if (guard == nullptr) {
    guard = new Guard;
    guard->next = guards.load();
    guards.store(guard);
  }
  const auto begin = reinterpret_cast<uintptr_t>(data);
  guard->damaged.store(false);
  guard->end.store(begin + (size + page_size - 1) / page_size * page_size);
  guard->begin.store(begin);
  return guard;
}

int64_t modified_ns(const struct stat& status) {
  return int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

// 0 if the system has no huge pages for a process's own memory.
size_t huge_page_size() {
  static const size_t size = [] {
    const std::string folder = "/sys/kernel/mm/transparent_hugepage/";
    std::string enabled;
    size_t bytes = 0;
    std::getline(std::ifstream(folder + "enabled"), enabled);
    std::ifstream(folder + "hpage_pmd_size") >> bytes;
    return enabled.find("[never]") == std::string::npos ? bytes : 0;
  }();
  return size;
}

// An address range of `size` bytes that begins where a huge page may, and that nothing can be read
// from yet; null if there is none.
std::byte* reserve_aligned(size_t size) {
  const size_t huge = std::max(huge_page_size(), size_t{1});
  void* all =
      mmap(nullptr, size + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  const auto begin = reinterpret_cast<uintptr_t>(all);
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t aligned = (begin + huge - 1) / huge * huge;
  const uintptr_t end = (aligned + size + page - 1) / page * page;
  if (aligned > begin) munmap(all, aligned - begin);
  if (begin + size + huge > end) munmap(reinterpret_cast<void*>(end), begin + size + huge - end);
  return reinterpret_cast<std::byte*>(aligned);
}

// Whether all pages of a mapped range are in the page cache.
bool is_cached(const std::byte* from, size_t size) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((size + page - 1) / page);
  if (mincore(const_cast<std::byte*>(from), size, pages.data()) != 0) return false;
  return std::all_of(pages.begin(), pages.end(), [](unsigned char state) { return state & 1; });
}

// A copy of whole, aligned huge pages; null if they cannot be had.
std::byte* copy_to_huge_pages(const std::byte* from, size_t size) {
  std::byte* to = reserve_aligned(size);
  if (to == nullptr) return nullptr;
  const auto page = static_cast<int64_t>(huge_page_size());
  bool huge =
      mprotect(to, size, PROT_READ | PROT_WRITE) == 0 && madvise(to, size, MADV_HUGEPAGE) == 0;
  if (huge) {
    ThreadPool::shared().parallel_for(static_cast<int64_t>(size), page,
                                      [&](int64_t i, int64_t end) {
                                        std::memcpy(to + i, from + i, static_cast<size_t>(end - i));
                                      });
#ifdef MADV_COLLAPSE
    // Where memory is scattered the kernel has given small pages; it tries harder when asked to.
    huge = madvise(to, size, MADV_COLLAPSE) == 0 || errno == EINVAL;
#endif
    huge = huge && mprotect(to, size, PROT_READ) == 0;
  }
  if (huge) return to;
  munmap(to, size);
  return nullptr;
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  // O_NONBLOCK: opening a pipe would wait for a writer.
  file->descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file->descriptor_ < 0) throw_cannot("open", path, errno);
  struct stat status{};
  if (fstat(file->descriptor_, &status) != 0) throw_cannot("open", path, errno);
  if (S_ISDIR(status.st_mode)) throw_cannot("map", path, EISDIR);
  if (!S_ISREG(status.st_mode)) throw_io("cannot map {}: not a regular file", printable(path));
  file->modified_ns_ = modified_ns(status);
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return file;
  std::byte* place = reserve_aligned(size);
  if (place == nullptr) throw_cannot("map", path, errno);
  void* data = mmap(place, size, PROT_READ, MAP_PRIVATE | MAP_FIXED, file->descriptor_, 0);
  if (data == MAP_FAILED) {
    const int reason = errno;
    munmap(place, size);
    throw_cannot("map", path, reason);
  }
#ifdef MADV_HUGEPAGE
  // What is not in the page cache yet comes in huge pages where the file system can.
  madvise(data, size, MADV_HUGEPAGE);
#endif
  file->data_ = static_cast<const std::byte*>(data);
  file->size_ = size;
  file->guard_ = add_guard(file->data_, size);
  return file;
}

MappedFile::~MappedFile() {
  if (guard_ != nullptr) {
    std::lock_guard lock(guards_mutex);
    guard_->begin.store(0);
  }
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
  if (descriptor_ >= 0) close(descriptor_);
}

bool MappedFile::damaged() const { return guard_ != nullptr && guard_->damaged.load(); }

void MappedFile::forget(const std::byte* begin, size_t size) const {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const auto first = (static_cast<size_t>(begin - data_) + page - 1) / page * page;
  const auto last = static_cast<size_t>(begin - data_ + size) / page * page;
  std::lock_guard lock(settling_);
  // What has settled has no file to come back from.
  if (first < last && settled_.empty())
    madvise(const_cast<std::byte*>(data_) + first, last - first, MADV_DONTNEED);
}

size_t MappedFile::settle(size_t begin, size_t end) const {
  const size_t huge = huge_page_size();
  if (huge == 0) return 0;
  const size_t first = (begin + huge - 1) / huge, last = std::min(end, size_) / huge;
  std::lock_guard lock(settling_);
  if (refused_) return 0;
  settled_.resize(size_ / huge);
  size_t copied = 0;
  for (size_t page = first; page < last;) {
    size_t next = page;
    while (next < last && !settled_[next] && is_cached(data_ + next * huge, huge)) ++next;
    if (next > page && !settle_pages(page, next - page)) {
      refused_ = true;
      break;
    }
    std::fill(settled_.begin() + static_cast<ptrdiff_t>(page),
              settled_.begin() + static_cast<ptrdiff_t>(next), true);
    copied += (next - page) * huge;
    page = std::max(next, page + 1);
  }
  return copied;
}

bool MappedFile::settle_pages([[maybe_unused]] size_t first, [[maybe_unused]] size_t count) const {
#ifdef MREMAP_FIXED
  const size_t huge = huge_page_size(), size = count * huge;
  auto* place = const_cast<std::byte*>(data_) + first * huge;
  std::byte* copy = copy_to_huge_pages(place, size);
  if (copy == nullptr) return false;
  // In one step: who reads meanwhile gets the same bytes from the one or from the other.
  if (mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, place) != MAP_FAILED) return true;
  munmap(copy, size);
#endif
  return false;
}

void MappedFile::check_unchanged() const {
  if (damaged())
    throw_io("{} was cut short or could not be read while it was in use", printable(path_));
  struct stat status{};
  if (fstat(descriptor_, &status) != 0) throw_cannot("examine", path_, errno);
  if (static_cast<size_t>(status.st_size) != size_ || modified_ns(status) != modified_ns_) {
    throw_io("{} was changed while it was in use ({} bytes when opened, {} now)", printable(path_),
             size_, status.st_size);
  }
}

}  // namespace mica
