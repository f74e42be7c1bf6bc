"""`relay simulate`: an archive of mail, played by its dates through the judgement of the relay."""
