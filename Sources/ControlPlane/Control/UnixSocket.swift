enum UnixSocket { static let longestPath = 107 }
