import Glibc

/// How many files a process may have open: a socket each, for whoever serves many.
package enum OpenFiles {
  /// Raises the soft limit (RLIMIT_NOFILE) to the hard one, and the hard one where that is less than `wanted` and the
  /// process may (CAP_SYS_RESOURCE).
  ///
  /// - Returns: files that may be open now; 0 when the system does not say.
  @discardableResult
  package static func raiseLimit(wanted: Int = 0) -> Int {
    var limit = rlimit()
    let files = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    guard unsafe getrlimit(files, &limit) == 0 else { return 0 }
    if limit.rlim_max < rlim_t(wanted) {
      var higher = rlimit(rlim_cur: rlim_t(wanted), rlim_max: rlim_t(wanted))
      if unsafe setrlimit(files, &higher) == 0 { return wanted }
    }
    if limit.rlim_cur < limit.rlim_max {
      var raised = rlimit(rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max)
      if unsafe setrlimit(files, &raised) == 0 { limit = raised }
    }
    return Int(clamping: limit.rlim_cur)
  }
}
