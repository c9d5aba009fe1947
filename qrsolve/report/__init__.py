"""What people read: tables on a terminal and pictures of weights."""
