"""The leaderboard: rows (`row`), the file that holds them (`store`), tables of them (`render`). Importable without torch."""
