"""What keeps a request from harming others: rights and rates, slow and countless connections, foreign origins."""
